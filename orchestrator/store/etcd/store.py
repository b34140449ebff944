"""The store in etcd: each method that writes is a transaction that compares what it was decided on."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Self

from orchestrator.attempt import Attempt, Event
from orchestrator.store.claim import claimed
from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.entries import EtcdEntries
from orchestrator.store.etcd.open_rows import EtcdOpenRows
from orchestrator.store.etcd.outbox import EtcdOutbox, Telling
from orchestrator.store.etcd.rows import (
    VERSION,
    AttemptValue,
    Keys,
    decode_attempt,
    decode_event,
    decode_owner,
    encode_attempt,
    encode_event,
    encode_owner,
    replace_row,
    time_text,
)
from orchestrator.store.etcd.transaction import OPERATIONS, Transaction, below_each, transact, values
from orchestrator.store.held_row import is_event, renewed, require_held, saved, wishing
from orchestrator.store.parts import parts
from orchestrator.store.store import (
    STORE_UNUSABLE,
    OpenRow,
    OutboxRow,
    Ownership,
    attempt_open,
    only_match,
    unknown_attempt,
)
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.daemon.etcd_place import EtcdPlace
from vm_migration.errors import Refused, Stale

_MANY: Final = 25
"""Attempts that are written in one transaction: a report of many rounds is 30 KB, and etcd takes 1.5 MB at a time."""


class EtcdStore:
    """A Store: one site's keys in etcd."""

    def __init__(self, place: EtcdPlace, site: str) -> None:
        """Meet etcd, and see that this version may use what lies there.

        Raises:
            Refused: No majority of its members answers, or a newer version wrote what lies there.
            InvalidInput: The TLS files cannot be used.
        """
        self.client = EtcdClient(place)
        self.keys = Keys(site)
        self.entries = EtcdEntries(self.client, self.keys)
        """What outlives a driver beside attempts."""
        self._outbox = EtcdOutbox(self.client, self.keys)
        self._open_rows = EtcdOpenRows(self.client, self.keys)
        self._looked_at = self.keys.ended  # up to where `prune` has looked
        try:
            transact(self.client, self._require_version)
        except BaseException:
            self.client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what was committed stays."""
        self.client.close()

    # attempts

    def open_attempt(self, attempt: Attempt) -> Attempt:
        """Enter a new attempt; asked twice, answer with its row."""

        def decide(transaction: Transaction) -> Attempt:
            if (known := self._find(transaction, attempt.attempt)) is not None:
                return known.row
            self._enter(transaction, Telling(self.keys, transaction), attempt, attempt.created_at)
            return attempt

        return transact(self.client, decide)

    def claim(self, attempt_id: str, driver: str, now: float, *, sole: bool = False) -> Attempt:
        """Take the right to drive an attempt, with its next term where it had a driver, and tell how it stands."""
        decided = False

        def decide(transaction: Transaction) -> Attempt:
            nonlocal decided
            known = self._known(transaction, attempt_id)
            if decided and (known.row.driver, known.row.heartbeat) == (driver, now):
                return known.row  # by this very call, whose answer was lost
            row, decided = claimed(known.row, driver, now, sole=sole), True
            left = list(self.client.below(self.keys.outbox_of(attempt_id)))
            self._take(transaction, Telling(self.keys, transaction), replace_row(known, row), left)
            return row

        return transact(self.client, decide)

    def claim_all(self, attempts: Sequence[str], driver: str, now: float, *, sole: bool = False) -> tuple[Attempt, ...]:
        """Claim many, and return those that this driver drives now."""
        found: list[Attempt] = []
        for part in parts(attempts, _MANY):
            found += self._claimed_together(part, driver, now, sole=sole)
        return tuple(found)

    def heartbeat(self, attempt: Attempt, now: float) -> Attempt:
        """Renew a claim and return the row as it stands, a wish to cancel included."""

        def decide(transaction: Transaction) -> Attempt:
            known = self._known(transaction, attempt.attempt)
            require_held(known.row, attempt)
            row = replace(known.row, heartbeat=now)
            self._put(transaction, replace_row(known, row))
            return row

        return transact(self.client, decide)

    def renew(self, attempts: Sequence[Attempt], now: float) -> frozenset[str]:
        """Renew many claims with what their sources have told since; return those that somebody else has taken."""
        lost = [transact(self.client, partial(self._renewed, part, now)) for part in parts(attempts, _MANY)]
        return frozenset().union(*lost)

    def save(
        self, attempt: Attempt, now: float, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> Attempt:
        """Write an attempt that this driver holds; a new phase or outcome is an event and leaves through the outbox."""

        def decide(transaction: Transaction) -> Attempt:
            known = self._known(transaction, attempt.attempt)
            row, telling = saved(known.row, attempt, now), Telling(self.keys, transaction)
            value = replace_row(known, row)
            if is_event(known.row, row):
                value = self._with_event(transaction, telling, value, now)
            self._put(transaction, value)
            if row.ended and not known.row.ended:
                transaction.delete(self.keys.open_of(row.machine))
                transaction.put(self.keys.ended_at(row), b"")
            if owner is not None:
                self._own(transaction, telling, owner, attempt.driver)
            if successor is not None and self._find(transaction, successor.attempt) is None:
                self._enter(transaction, telling, successor, now, after=attempt.attempt)
            return row

        return transact(self.client, decide)

    def let_go(self, attempt: Attempt) -> None:
        """Give a claim back without ending the attempt; the next driver takes the next term."""

        def decide(transaction: Transaction) -> None:
            known = self._find(transaction, attempt.attempt)
            if known is not None and (known.row.driver, known.row.term) == (attempt.driver, attempt.term):
                self._put(transaction, replace_row(known, replace(known.row, driver="")))

        transact(self.client, decide)

    def request_cancel(self, attempt_id: str) -> Attempt:
        """Leave a wish to cancel for whoever drives."""

        def decide(transaction: Transaction) -> Attempt:
            known = self._known(transaction, attempt_id)
            row = replace(known.row, cancel_requested=True)
            self._put(transaction, replace_row(known, row))
            return row

        return transact(self.client, decide)

    def request_bandwidth(self, attempt_id: str, bytes_per_s: int) -> Attempt:
        """Leave a wish for bandwidth, 0 for as much as there is, for whoever drives."""

        def decide(transaction: Transaction) -> Attempt:
            known = self._known(transaction, attempt_id)
            row = wishing(known.row, bytes_per_s)
            self._put(transaction, replace_row(known, row))
            return row

        return transact(self.client, decide)

    def get(self, attempt_id: str) -> Attempt:
        """Return an attempt."""
        return self._known(Transaction(self.client), attempt_id).row

    def has(self, attempt_id: str) -> bool:
        """Say whether an attempt is known."""
        return self._find(Transaction(self.client), attempt_id) is not None

    def find(self, start: str) -> Attempt:
        """Return the one attempt whose identifier starts so."""
        pattern = start.lower()
        found = self.client.below(self.keys.attempt(pattern), limit=2) if pattern else ()
        return only_match(pattern, [decode_attempt(one.value).row for one in found])

    def attempts(self, *, everything: bool = False, limit: int = 1000) -> tuple[Attempt, ...]:
        """Return every open attempt, and with `everything` the `limit` newest of those that ended; newest first."""
        found = [one.value for one in self.client.below(self.keys.attempts)] if everything else self._open()
        rows = _newest_first(found)
        ended = [row for row in rows if row.ended][: limit if everything else 0]
        last = {row.attempt for row in ended}
        return tuple(row for row in rows if not row.ended or row.attempt in last)

    def standing(self, since: float) -> tuple[Attempt, ...]:
        """Return every open attempt, and those that ended after a time, newest first."""
        open_now = self._open()  # before those that ended: one that ends in between is told as such
        first = self.keys.ended + time_text(since).encode()
        ended = (one.key.rpartition(b"/")[2].decode() for one in self.client.below(self.keys.ended) if one.key > first)
        found = values(self.client, [self.keys.attempt(attempt) for attempt in ended])
        known = {row.attempt: row for row in _newest_first([*open_now, *found])}
        return tuple(row for row in known.values() if not row.ended or row.updated_at > since)

    def open_rows(self) -> tuple[OpenRow, ...]:
        """Return what is looked at often of every open attempt."""
        return self._open_rows.rows()

    def open_attempt_of(self, machine: str) -> Attempt | None:
        """Return a machine's open attempt."""
        transaction = Transaction(self.client)
        holder = transaction.get(self.keys.open_of(machine))
        known = None if holder is None else self._find(transaction, holder.decode())
        return None if known is None or known.row.ended else known.row

    def events(self, attempt_id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Return an attempt's events past a sequence number, in order."""
        found = (decode_event(one.value) for one in self.client.below(self.keys.events_of(attempt_id)))
        return tuple(event for event in found if event.sequence > after)

    def with_events(self, attempts: Collection[str]) -> dict[str, tuple[Attempt, tuple[Event, ...]]]:
        """Return those attempts that are known, each with its events; none is newer than the attempt."""
        events = {attempt: self.events(attempt) for attempt in attempts}
        found = values(self.client, [self.keys.attempt(attempt) for attempt in events])
        rows = (decode_attempt(value).row for value in found)
        return {row.attempt: (row, events[row.attempt]) for row in rows}

    def prune(self, before: float) -> int:
        """Forget those of a hundred attempts that ended before a time and are published; return how many.

        Each call looks at the hundred after those of the last, oldest first: some may never be published.
        """
        end = self.keys.ended + time_text(before).encode()
        found = self.client.range(api.RangeRequest(key=self._looked_at, range_end=end, limit=OPERATIONS)).kvs
        self._looked_at = found[-1].key + b"\0" if len(found) == OPERATIONS else self.keys.ended
        return sum(transact(self.client, partial(self._forget, one.key, before)) for one in found)

    # owners

    def record_owner(self, owner: Ownership, driver: str) -> bool:
        """Write where a machine lives, unless a higher epoch is known; say whether this one stands."""
        return transact(self.client, lambda made: self._own(made, Telling(self.keys, made), owner, driver))

    def owners(self) -> tuple[Ownership, ...]:
        """Return where every known machine lives."""
        found = (decode_owner(one.value) for one in self.client.below(self.keys.owners))
        return tuple(sorted(found, key=lambda one: one.name))

    def owner_of(self, machine: str) -> Ownership | None:
        """Return where a machine lives, where that is known."""
        written = Transaction(self.client).get(self.keys.owner(machine))
        return None if written is None else decode_owner(written)

    # outbox

    def pending(self, driver: str, limit: int) -> Sequence[OutboxRow]:
        """Return what this driver has yet to publish, oldest first."""
        return self._outbox.pending(driver, limit)

    def acknowledge(self, driver: str, number: int) -> None:
        """Forget this driver's outbox up to a number: the broker has it."""
        self._outbox.acknowledge(driver, number)

    def adopt_outbox(self, driver: str, now: float, silence: float) -> None:
        """Take over what drivers left unpublished that have no open attempt with a heartbeat within a silence."""
        alive = frozenset(row.driver for row in self.attempts() if row.heartbeat > now - silence)
        self._outbox.adopt(driver, alive)

    def _open(self) -> list[bytes]:
        names = [self.keys.attempt(one.value.decode()) for one in self.client.below(self.keys.open)]
        return values(self.client, names)

    def _claimed_together(self, attempts: Sequence[str], driver: str, now: float, *, sole: bool) -> list[Attempt]:
        transaction = Transaction(self.client)
        transaction.read(map(self.keys.attempt, attempts))
        left = below_each(self.client, map(self.keys.outbox_of, attempts))
        telling, taken = Telling(self.keys, transaction), list[Attempt]()
        for attempt, entries in zip(attempts, left, strict=True):
            known = self._find(transaction, attempt)
            with suppress(Refused):  # it has ended, or another driver holds it
                if known is not None:
                    taken.append(claimed(known.row, driver, now, sole=sole))
                    self._take(transaction, telling, replace_row(known, taken[-1]), entries)
        if not taken or (transaction.size <= OPERATIONS and transaction.commit()):
            return taken
        return [row for one in taken if (row := self._claimed_alone(one, driver, now, sole=sole)) is not None]

    def _claimed_alone(self, attempt: Attempt, driver: str, now: float, *, sole: bool) -> Attempt | None:
        """Claim one of many that others wrote meanwhile, or that were too much at a time."""
        row = self.get(attempt.attempt)
        if (row.driver, row.heartbeat, row.term) == (driver, now, attempt.term):
            return row  # with the others, by a transaction whose answer was lost
        try:
            return self.claim(attempt.attempt, driver, now, sole=sole)
        except Refused as error:
            if error.code == STORE_UNUSABLE:
                raise
            return None

    def _take(
        self, transaction: Transaction, telling: Telling, value: AttemptValue, left: Sequence[api.KeyValue]
    ) -> None:
        """Write a row as its new driver holds it, who tells its state, and what was left to publish of it."""
        telling.hand_over(value.row.driver, left)
        telling.tell(value.row.driver, "state", value.row.attempt)
        self._put(transaction, value)

    def _renewed(self, attempts: Sequence[Attempt], now: float, transaction: Transaction) -> frozenset[str]:
        """Renew claims, and return those that are somebody else's."""
        transaction.read(self.keys.attempt(one.attempt) for one in attempts)
        held = set()
        for one in attempts:
            known = self._find(transaction, one.attempt)
            with suppress(Stale):
                if known is not None:
                    self._put(transaction, replace_row(known, renewed(known.row, one, now)))
                    held.add(one.attempt)
        return frozenset(one.attempt for one in attempts) - held

    def _require_version(self, transaction: Transaction) -> None:
        written = transaction.get(self.keys.version)
        if written is None:
            transaction.put(self.keys.version, str(VERSION).encode())
        elif int(written) > VERSION:
            text = f"What lies in {self.client.place} was written by a newer version"
            raise Refused("store-version", text, "Use that version")

    def _find(self, transaction: Transaction, attempt_id: str) -> AttemptValue | None:
        value = transaction.get(self.keys.attempt(attempt_id))
        return None if value is None else decode_attempt(value)

    def _known(self, transaction: Transaction, attempt_id: str) -> AttemptValue:
        if (found := self._find(transaction, attempt_id)) is None:
            raise unknown_attempt(attempt_id)
        return found

    def _enter(
        self, transaction: Transaction, telling: Telling, attempt: Attempt, now: float, *, after: str = ""
    ) -> None:
        """Enter an attempt whose machine has no open one, but perhaps the one that ends with this transaction."""
        holder = (transaction.get(self.keys.open_of(attempt.machine)) or b"").decode()
        if holder and holder != after:
            known = self._find(transaction, holder)
            raise attempt_open(attempt, holder, known.row.driver if known is not None else "")
        self._put(transaction, self._with_event(transaction, telling, AttemptValue(attempt), now))
        if attempt.ended:
            transaction.put(self.keys.ended_at(attempt), b"")
        else:
            transaction.put(self.keys.open_of(attempt.machine), attempt.attempt.encode())

    def _with_event(self, transaction: Transaction, telling: Telling, value: AttemptValue, now: float) -> AttemptValue:
        row, sequence = value.row, value.events + 1
        event = Event(row.attempt, sequence, row.phase, row.outcome, row.reason, now)
        transaction.put(self.keys.event(row.attempt, sequence), encode_event(event))
        telling.tell(row.driver, "event", row.attempt, sequence)
        telling.tell(row.driver, "state", row.attempt)
        return AttemptValue(row, sequence)

    def _put(self, transaction: Transaction, value: AttemptValue) -> None:
        transaction.put(self.keys.attempt(value.row.attempt), encode_attempt(value))

    def _own(self, transaction: Transaction, telling: Telling, owner: Ownership, driver: str) -> bool:
        written = transaction.get(self.keys.owner(owner.machine))
        known = None if written is None else decode_owner(written)
        if known is None or owner.epoch > known.epoch:
            transaction.put(self.keys.owner(owner.machine), encode_owner(owner))
            telling.tell(driver, "owner", owner.machine)
            return True
        return (known.host, known.epoch) == (owner.host, owner.epoch)

    def _forget(self, ended: bytes, before: float, transaction: Transaction) -> int:
        attempt_id = ended.rpartition(b"/")[2].decode()
        known = self._find(transaction, attempt_id)
        unpublished = known is not None and any(self.client.below(self.keys.outbox_of(attempt_id), limit=1))
        if known is not None and (known.row.updated_at >= before or unpublished):
            return 0
        transaction.delete(ended)
        transaction.delete(self.keys.attempt(attempt_id))
        transaction.delete_below(self.keys.events_of(attempt_id))
        return int(known is not None)


def _newest_first(found: Iterable[bytes]) -> list[Attempt]:
    return sorted((decode_attempt(value).row for value in found), key=lambda row: row.created_at, reverse=True)
