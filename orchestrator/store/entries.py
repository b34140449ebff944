"""What outlives a driver beside attempts: text under a key, written by comparing versions.

An evacuation is an entry, and so is a host in maintenance. The interface is as narrow as that of a store which compares
and swaps keys: put if they stand at their versions, get, delete, list below a prefix. In etcd a key's `mod_revision` is
its version, and 0 that of a key which is not there.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from vm_migration.errors import Stale

Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS entry (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID"""
"""The version before goes on beside it: it names its own tables."""


_LAST: Final = "\U0010ffff"
"""No key holds it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it stands; the version is above 0 and grows with each change."""

    key: str
    value: str
    version: int


class Entries(Protocol):
    """What every store offers. Each method is one transaction and may be called from any thread."""

    def get(self, key: str) -> Entry | None:
        """Return an entry."""

    def put(self, key: str, value: str, *, version: int) -> Entry:
        """Write an entry that stands at this version; 0: it is not there.

        Raises:
            Stale: It stands at another one; nothing is written.
        """

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Write several entries, each of which stands at the version that it names, as `put`.

        Raises:
            Stale: One stands at another version; nothing is written.
        """

    def delete(self, key: str, *, version: int) -> None:
        """Forget an entry that stands at this version.

        Raises:
            Stale: It stands at another one, or is not there.
        """

    def below(self, prefix: str) -> tuple[Entry, ...]:
        """Return every entry whose key starts so, by key."""


def entry_changed(key: str) -> Stale:
    """Return the error for an entry that stands at another version."""
    return Stale("entry-changed", f"{key} was written by somebody else meanwhile", "Ask again")


class SqliteEntries:
    """Entries in a table beside the store's own; each method is a transaction of the store."""

    def __init__(self, reading: Transaction, writing: Transaction) -> None:
        """Take how the store reads and writes; the table is made with the first entry."""
        self._reading = reading
        self._writing = writing

    def get(self, key: str) -> Entry | None:
        """Return an entry."""
        with self._reading() as db:
            rows = _rows(db, "SELECT key, value, version FROM entry WHERE key = ?", (key,))
        return rows[0] if rows else None

    def put(self, key: str, value: str, *, version: int) -> Entry:
        """Write an entry that stands at this version; 0: it is not there.

        Raises:
            Stale: It stands at another one; nothing is written.
        """
        self.put_all([Entry(key, value, version)])
        return Entry(key, value, version + 1)

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Write several entries, each of which stands at the version that it names.

        Raises:
            Stale: One stands at another version; nothing is written.
        """
        with self._writing() as db:
            for entry in entries:
                _require(db, entry.key, entry.version)
                db.execute(
                    "INSERT INTO entry (key, value, version) VALUES (?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version",
                    (entry.key, entry.value, entry.version + 1),
                )

    def delete(self, key: str, *, version: int) -> None:
        """Forget an entry that stands at this version.

        Raises:
            Stale: It stands at another one, or is not there.
        """
        with self._writing() as db:
            _require(db, key, version or -1)
            db.execute("DELETE FROM entry WHERE key = ?", (key,))

    def below(self, prefix: str) -> tuple[Entry, ...]:
        """Return every entry whose key starts so, by key."""
        query = "SELECT key, value, version FROM entry WHERE key >= ? AND key < ? ORDER BY key"
        with self._reading() as db:
            return tuple(_rows(db, query, between(prefix)))


def between(prefix: str) -> tuple[str, str]:
    """Return between which texts those are that start so: an index finds them, as it does not what is cut off them."""
    return prefix, prefix + _LAST


def _rows(db: sqlite3.Connection, query: str, values: tuple[str | int, ...]) -> list[Entry]:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entry'").fetchone():
        return []  # who only reads makes no table
    return [Entry(*row) for row in db.execute(query, values).fetchall()]


def _require(db: sqlite3.Connection, key: str, version: int) -> None:
    db.execute(_TABLE)
    row = db.execute("SELECT version FROM entry WHERE key = ?", (key,)).fetchone()
    if (0 if row is None else row["version"]) != version:
        raise entry_changed(key)
