"""Entries beside attempts, in etcd: a key's version is the revision at which it was written last."""

from collections.abc import Iterable, Sequence

from orchestrator.store.entries import Entry, entry_changed
from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.rows import Keys
from orchestrator.store.etcd.transaction import Transaction
from vm_migration.api.etcd import rpc_pb2 as api


class EtcdEntries:
    """Entries of one site."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def get(self, key: str) -> Entry | None:
        """Return an entry."""
        found = self._client.range(api.RangeRequest(key=self._keys.entry(key))).kvs
        return self._entry(found[0]) if found else None

    def put(self, key: str, value: str, *, version: int) -> Entry:
        """Write an entry that stands at this version; 0: it is not there.

        Raises:
            Stale: It stands at another one; nothing is written.
        """
        return Entry(key, value, self._write([Entry(key, value, version)]))

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Write several entries, each of which stands at the version that it names.

        Raises:
            Stale: One stands at another version; nothing is written.
        """
        self._write(list(entries))

    def delete(self, key: str, *, version: int) -> None:
        """Forget an entry that stands at this version.

        Raises:
            Stale: It stands at another one, or is not there.
        """
        transaction = Transaction(self._client)
        name = self._keys.entry(key)
        transaction.require(name, version or -1)
        transaction.delete(name)
        if not transaction.commit():
            raise entry_changed(key)

    def below(self, prefix: str) -> tuple[Entry, ...]:
        """Return every entry whose key starts so, by key."""
        return tuple(self._entry(one) for one in self._client.below(self._keys.entry(prefix)))

    def _write(self, entries: Sequence[Entry]) -> int:
        transaction = Transaction(self._client)
        for entry in entries:
            name = self._keys.entry(entry.key)
            transaction.require(name, entry.version)
            transaction.put(name, entry.value.encode())
        revision = transaction.commit()
        if revision:
            return revision
        raise entry_changed(", ".join(entry.key for entry in entries))

    def _entry(self, found: api.KeyValue) -> Entry:
        key = found.key.removeprefix(self._keys.entries).decode()
        return Entry(key, found.value.decode(), found.mod_revision)
