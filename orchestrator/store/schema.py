"""The tables of the store, and how a connection to them is opened.

::

    attempt   one row an attempt; at most one open row a machine (a partial unique index says so)
    owner     where a machine lives, compared by epoch
    event     append-only; (attempt, sequence) without gap
    outbox    what is yet to be published of those three, in order; a row is written with what it tells of, in one
              transaction, and leaves when the broker has it

Write-ahead log with synchronous=FULL: a committed transaction survives power loss. Every write is BEGIN IMMEDIATE, so
that several processes wait for each other and none fails in the middle.
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from vm_migration.errors import Refused

VERSION: Final = 1
BUSY_SECONDS: Final = 10.0

_TABLES: Final = """
CREATE TABLE attempt (
  attempt TEXT PRIMARY KEY,
  machine TEXT NOT NULL,
  name TEXT NOT NULL,
  source TEXT NOT NULL,
  destination TEXT NOT NULL,
  policy TEXT NOT NULL,
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  priority INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  term INTEGER NOT NULL,
  phase TEXT NOT NULL,
  outcome TEXT,
  reason TEXT NOT NULL,
  prepare_ms REAL NOT NULL,
  error TEXT,
  blockers TEXT NOT NULL,
  warnings TEXT NOT NULL,
  expected TEXT,
  report TEXT,
  shared_clock INTEGER NOT NULL,
  driver TEXT NOT NULL,
  heartbeat REAL NOT NULL,
  cancel_requested INTEGER NOT NULL,
  ended INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_open_attempt ON attempt (machine) WHERE ended = 0;
CREATE INDEX attempt_by_time ON attempt (created_at);
CREATE TABLE owner (
  machine TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE event (
  attempt TEXT NOT NULL REFERENCES attempt (attempt) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  phase TEXT NOT NULL,
  outcome TEXT,
  reason TEXT NOT NULL,
  at REAL NOT NULL,
  PRIMARY KEY (attempt, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  driver TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  sequence INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_by_driver ON outbox (driver, number);
"""
_ADDED: Final = {"retry": "TEXT NOT NULL DEFAULT ''", "asked": "TEXT NOT NULL DEFAULT ''"}
"""Columns that came later. The version before goes on beside them: it names its own, and these have defaults."""

IN_MEMORY: Final = Path(":memory:")
"""SQLite's name for a store that is no file, of rehearsals."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the store's file, making it and its tables where they are missing.

    Raises:
        Refused: The file cannot be opened, or a newer version wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path != IN_MEMORY:
            _make(path)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        hint = "Check `[site] store` in the configuration, and that this user may write there"
        raise Refused("store-unusable", f"The store {path} cannot be used: {error}", hint) from None
    return connection


def _make(path: Path) -> None:
    """Make the file where it is missing, its owner's alone; SQLite gives the files that it lays beside it its mode.

    One that is there is not opened: a process that closes any descriptor of a file loses all its locks on it, those of
    its other connections too (POSIX), and whoever closes the store elsewhere would then take its log for left behind.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if _is_ready(connection, path):
        return  # looked at without the lock for writing: who only reads must not wait for a writer that is frozen
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if _version(connection, path) == 0:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={VERSION}")
        for name in _missing(connection):
            connection.execute(f"ALTER TABLE attempt ADD COLUMN {name} {_ADDED[name]}")


def _is_ready(connection: sqlite3.Connection, path: Path) -> bool:
    return _version(connection, path) == VERSION and not _missing(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise Refused("store-version", f"The store {path} was written by a newer version", "Use that version")
    return int(version)


def _missing(connection: sqlite3.Connection) -> list[str]:
    present = {row["name"] for row in connection.execute("PRAGMA table_info(attempt)")}
    return [name for name in _ADDED if name not in present]
