"""The right to be the daemon of a store: a lock that the kernel takes back when its holder is gone, however it went.

A daemon signs every row with one name. Whoever holds the lock knows that rows under that name are of an earlier life,
and may go on with them at once, in the next term; a second daemon over the same store is refused. The lock is on a file
of its own: SQLite's are POSIX locks, which any close of the store's file would drop.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vm_migration.errors import Refused


@contextlib.contextmanager
def only_daemon(store: Path) -> Iterator[None]:
    """Hold the right while the context is entered.

    Raises:
        Refused: Another process has it: `orchestrator-runs`; or there can be no store here: `store-unusable`.
    """
    path = store.with_name(f"{store.name}.daemon")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        hint = "Check `[site] store` in the configuration, and that this user may write there"
        raise Refused("store-unusable", f"The store {store} cannot be used: {error}", hint) from None
    try:
        _lock(descriptor, store)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, store: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        raise Refused(
            "orchestrator-runs",
            f"Another orchestrator, process {holder or 'unknown'}, drives what is in the store {store}",
            "Use that one, or stop it first",
        ) from None
