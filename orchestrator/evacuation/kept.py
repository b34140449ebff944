"""Evacuations, as entries of the store: read, and changed by comparing versions."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from orchestrator.evacuation.plan import Evacuation, Kind
from orchestrator.store.claim import CLAIM_SECONDS, HEARTBEAT_SECONDS, is_daemon
from orchestrator.store.entries import Entries, Entry
from vm_migration.errors import InvalidInput, Refused, Stale

EVACUATION_OPEN: Final = "evacuation-open"
_PLANS: Final = "evacuation/"
_HOLDERS: Final = "evacuation-of/"
"""Followed by a host: which evacuation is the last of it, and the only one of it that may be open."""
_TRIES: Final = 50
"""How often a change is made anew where others write the same entry meanwhile; each of them got on."""

_Read = TypeVar("_Read")
Change = Callable[[Evacuation], Evacuation]


class Head(msgspec.Struct, frozen=True):
    """What is read of an entry by whoever looks often: its machines, which are most of it, are left out."""

    evacuation: str
    kind: Kind
    host: str
    ended: bool = False
    driver: str = ""
    heartbeat: float = 0.0


class KeptEvacuations:
    """Every method is one or a few short transactions, and may be called from any thread."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def all(self, *, everything: bool = True) -> tuple[Evacuation, ...]:
        """Return the open evacuations, or all of them, newest first; not those that another version must read."""
        found = []
        for entry in self._entries.below(_PLANS):
            with contextlib.suppress(Refused):
                if everything or not _decoded(entry, Head).ended:
                    found.append(_read(entry))
        return tuple(sorted(found, key=lambda one: (-one.created_at, one.evacuation)))

    def open(self) -> tuple[Head, ...]:
        """Return what is to be known of the open ones; not of those that another version must read."""
        heads = []
        for entry in self._entries.below(_PLANS):
            with contextlib.suppress(Refused):
                heads.append(_decoded(entry, Head))
        return tuple(one for one in heads if not one.ended)

    def find(self, start: str) -> Evacuation:
        """Return the one evacuation whose identifier starts so.

        Raises:
            InvalidInput: None does, or several do.
        """
        found = self._entries.below(f"{_PLANS}{start.lower()}")
        if len(found) == 1:
            return _read(found[0])
        if found:
            raise InvalidInput("ambiguous-evacuation", f'Several evacuations start with "{start}"', "Give more of it")
        hint = "See them all: viaduct list --all"
        raise InvalidInput("unknown-evacuation", f'No evacuation "{start}" is known', hint)

    def enter(self, plan: Evacuation) -> Evacuation:
        """Enter a new one; asked twice, answer with it.

        Which one is a host's is an entry of its own, and written together with the plan: of two that are entered for
        a host at once, by any two processes, one is refused.

        Raises:
            Refused: Another one of this host is open: code `evacuation-open`.
            Stale: Others were faster each time.
        """
        for last in reversed(range(_TRIES)):
            known = self._entries.get(_key(plan.evacuation))
            if known is not None:
                return _read(known)
            holder = self._entries.get(f"{_HOLDERS}{plan.host}")
            if holder is not None:
                self._require_over(holder.value)
            version = 0 if holder is None else holder.version
            held = Entry(f"{_HOLDERS}{plan.host}", plan.evacuation, version)
            try:
                self._entries.put_all([held, Entry(_key(plan.evacuation), _text(plan), 0)])
            except Stale:
                if not last:
                    raise
                continue
            return plan
        raise AssertionError("The last try returns or raises")

    def _require_over(self, evacuation: str) -> None:
        """Refuse unless one has ended, or is forgotten."""
        entry = self._entries.get(_key(evacuation))
        one = None if entry is None else _decoded(entry, Head)
        if one is not None and not one.ended:
            hint = f"Watch it (viaduct watch {evacuation}) or cancel it (viaduct cancel ...)"
            raise Refused(EVACUATION_OPEN, f"{one.kind} {evacuation} of {one.host} is open", hint)

    def claim(self, evacuation: str, driver: str, now: float, *, sole: bool = False) -> Evacuation:
        """Take the right to drive one; with `sole`, no other daemon drives (orchestrator.store.claim).

        Raises:
            Refused: It has ended, or somebody else drives it.
        """

        def claimed(plan: Evacuation) -> Evacuation:
            if plan.ended or (driven(plan, now) and not (sole and is_daemon(plan.driver))):
                state = "has ended" if plan.ended else f"is driven by {plan.driver}"
                hint = f"Watch it: viaduct watch {evacuation}"
                raise Refused("evacuation-held", f"Evacuation {evacuation} {state}", hint)
            return replace(plan, driver=driver, heartbeat=now)

        return self.change(evacuation, claimed)

    def drive(self, evacuation: str, driver: str, now: float, change: Change) -> Evacuation:
        """Change one that this driver holds, and renew its claim when that is due.

        Raises:
            Stale: Somebody else has taken it over.
        """

        def driven_on(plan: Evacuation) -> Evacuation:
            if plan.driver != driver:
                text = f"Evacuation {evacuation} is driven by {plan.driver or 'nobody'} now"
                raise Stale("evacuation-taken-over", text, f"Watch it: viaduct watch {evacuation}")
            after = change(plan)
            if after == plan:
                return replace(plan, heartbeat=now) if now - plan.heartbeat >= HEARTBEAT_SECONDS / 2 else plan
            return replace(after, heartbeat=now, updated_at=now)

        return self.change(evacuation, driven_on)

    def let_go(self, evacuation: str, driver: str) -> None:
        """Give a claim back."""
        self.change(evacuation, lambda plan: replace(plan, driver="") if plan.driver == driver else plan)

    def request_cancel(self, evacuation: str) -> Evacuation:
        """Leave a wish to cancel for whoever drives.

        Raises:
            InvalidInput: No such evacuation.
            Refused: It has ended.
        """

        def asked(plan: Evacuation) -> Evacuation:
            if plan.ended:
                text = f"Evacuation {plan.evacuation} has ended: {plan.outcome}"
                raise Refused("evacuation-ended", text, "There is nothing to cancel")
            return replace(plan, cancel_requested=True)

        return self.change(evacuation, asked)

    def change(self, evacuation: str, change: Change) -> Evacuation:
        """Change one, made anew for as long as others were faster.

        Raises:
            InvalidInput: No such evacuation.
            Stale: Others were faster each time.
        """
        for last in reversed(range(_TRIES)):
            entry = self._entries.get(_key(evacuation))
            if entry is None:
                return self.find(evacuation)  # which says that there is none
            plan = _read(entry)
            after = change(plan)
            if after == plan:
                return plan
            try:
                self._entries.put(entry.key, _text(after), version=entry.version)
            except Stale:
                if not last:
                    raise
                continue
            return after
        raise AssertionError("The last try returns or raises")

    def prune(self, before: float) -> None:
        """Forget those that ended before a time, but the last that emptied a host: it can be undone."""
        emptied: set[str] = set()
        for plan in self.all():
            last = plan.kind is Kind.EVACUATE and plan.host not in emptied
            if last:
                emptied.add(plan.host)
            elif plan.ended and plan.updated_at < before:
                entry = self._entries.get(_key(plan.evacuation))
                if entry is not None:
                    self._entries.delete(entry.key, version=entry.version)


def driven(plan: Evacuation | Head, now: float) -> bool:
    """Say whether somebody drives an evacuation at this moment."""
    return bool(plan.driver) and abs(now - plan.heartbeat) < CLAIM_SECONDS


def _key(evacuation: str) -> str:
    return f"{_PLANS}{evacuation}"


def _text(plan: Evacuation) -> str:
    return msgspec.json.encode(plan).decode()


def _read(entry: Entry) -> Evacuation:
    return _decoded(entry, Evacuation)


def _decoded(entry: Entry, kind: type[_Read]) -> _Read:
    try:
        return msgspec.json.decode(entry.value, type=kind)
    except msgspec.DecodeError as error:
        text = f"Entry {entry.key} cannot be read: {error}"
        raise Refused("evacuation-unreadable", text, "Use the version that wrote it") from None
