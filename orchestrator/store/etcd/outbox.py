"""What is yet to be published, in etcd: written with what it tells of, told in the order of writing, taken away after.

An entry's number is the revision at which it was written last, and its place in that transaction. Who takes an entry
away, or takes it over, compares that revision: a state that was written again while it was published is told again.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from orchestrator.store.etcd.client import EtcdClient, after
from orchestrator.store.etcd.rows import Keys, OutboxValue, decode_outbox, encode_outbox, outbox_row, revision_of
from orchestrator.store.etcd.transaction import OPERATIONS, Transaction, transact
from orchestrator.store.parts import parts
from orchestrator.store.store import OutboxRow
from vm_migration.api.etcd import rpc_pb2 as api

_PAGE: Final = 4 * OPERATIONS
"""More than one transaction writes, so that a page holds the whole of at least one."""


class Telling:
    """What one transaction has to tell, in order."""

    def __init__(self, keys: Keys, transaction: Transaction) -> None:
        self._keys = keys
        self._transaction = transaction
        self._told = 0

    def tell(self, driver: str, kind: str, subject: str, sequence: int = 0) -> None:
        """Have a driver publish something."""
        self._told += 1
        value = OutboxValue(driver, kind, subject, sequence, self._told)
        self._transaction.put(self._keys.outbox_entry(value), encode_outbox(value))

    def hand_over(self, driver: str, entries: Sequence[api.KeyValue]) -> None:
        """Have a driver publish what another was to, if it still stands so."""
        self._transaction.expect(entries)
        for entry in sorted(entries, key=lambda one: outbox_row(one)[1].number):
            value = decode_outbox(entry.value)
            self.tell(driver, value.kind, value.subject, value.sequence)


class EtcdOutbox:
    """The outbox of all drivers of a site."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def pending(self, driver: str, limit: int) -> Sequence[OutboxRow]:
        """Return what this driver has yet to publish, oldest first."""
        found: list[OutboxRow] = []
        for entry in self._entries():
            whose, row = outbox_row(entry)
            if whose == driver:
                found.append(row)
                if len(found) == limit:
                    break
        return tuple(found)

    def acknowledge(self, driver: str, number: int) -> None:
        """Forget this driver's entries up to a number, but for those that were written again meanwhile."""
        while transact(self._client, partial(self._taken_away, driver, number)):
            pass

    def adopt(self, driver: str, alive: frozenset[str]) -> None:
        """Take over what drivers left that are not alive."""
        left = [entry for entry in self._entries() if outbox_row(entry)[0] not in alive | {driver}]
        for part in parts(left, OPERATIONS):
            transaction = Transaction(self._client)
            Telling(self._keys, transaction).hand_over(driver, part)
            transaction.commit()  # what was written or published meanwhile is its own driver's, who lives

    def _taken_away(self, driver: str, number: int, transaction: Transaction) -> bool:
        """Take away as many as one transaction may; say whether there may be more."""
        numbered = ((entry, outbox_row(entry)) for entry in self._entries(revision_of(number)))
        mine = (entry for entry, (whose, row) in numbered if whose == driver and row.number <= number)
        done = list(itertools.islice(mine, OPERATIONS))
        transaction.expect(done)
        for entry in done:
            transaction.delete(entry.key)
        return len(done) == OPERATIONS

    def _entries(self, until: int = 0) -> Iterator[api.KeyValue]:
        """Yield the outbox in order, up to a revision where that is not 0."""
        since = 0
        while True:
            page = self._client.range(
                api.RangeRequest(
                    key=self._keys.outbox,
                    range_end=after(self._keys.outbox),
                    limit=_PAGE,
                    sort_order=api.RangeRequest.ASCEND,
                    sort_target=api.RangeRequest.MOD,
                    min_mod_revision=since,
                    max_mod_revision=until,
                )
            )
            found = list(page.kvs)
            if page.more:  # the last transaction's may be there in part, in any order
                since = found[-1].mod_revision
                found = [one for one in found if one.mod_revision < since]
            yield from sorted(found, key=lambda one: outbox_row(one)[1].number)
            if not page.more:
                return
