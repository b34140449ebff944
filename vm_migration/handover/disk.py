"""The file operations that a journal stands on, as a port, and the real ones.

A rehearsal's disk (memory_disk) loses power, tears writes, fails flushes and runs full at any step.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Protocol

LOCK_DEADLINE_S = 5.0
_LOCK_POLL_S = 0.005


class Disk(Protocol):
    """Files by number, as the kernel gives them. Every operation raises OSError, and FileNotFoundError for no file."""

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""

    def create(self, path: Path) -> int:
        """Create a file that only its owner may read; an older one of that name is removed first."""

    def open_folder(self, folder: Path) -> int:
        """Open a folder, to be locked and flushed; it is made when missing."""

    def close(self, file: int) -> None:
        """Close a file, and give back its lock."""

    def lock(self, file: int) -> None:
        """Hold the file's lock; raises BlockingIOError when somebody else keeps it past a deadline."""

    def unlock(self, file: int) -> None:
        """Give the lock back."""

    def is_at(self, file: int, path: Path) -> bool:
        """Whether `path` still names this very file."""

    def read(self, file: int, offset: int) -> bytes:
        """Everything from `offset` to the end of the file."""

    def write(self, file: int, offset: int, data: bytes) -> None:
        """Write all of `data`; after an error any part of it may have been written."""

    def reserve(self, file: int, offset: int, length: int) -> None:
        """Make sure that a later write there needs no new space; what was not written reads as NUL."""

    def flush(self, file: int) -> None:
        """Return when a file's contents, or a folder's names, survive a loss of power."""

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name; raises FileExistsError when that name is taken."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file a new name, in place of any other file of that name."""

    def unlink(self, path: Path) -> None:
        """Take a name away."""

    def names(self, folder: Path) -> list[str]:
        """The names in a folder; none when the folder is missing."""


class RealDisk:
    """The host's files. The lock is flock's: it also keeps two holders in one process apart."""

    def open(self, path: Path) -> int:
        """See Disk."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def create(self, path: Path) -> int:
        """See Disk."""
        path.unlink(missing_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def open_folder(self, folder: Path) -> int:
        """See Disk."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self, file: int) -> None:
        """See Disk."""
        os.close(file)

    def lock(self, file: int) -> None:
        """See Disk. flock has no deadline of its own, so it is asked for until ours is over."""
        deadline = time.monotonic() + LOCK_DEADLINE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOCK_POLL_S)  # flock has no deadline
            else:
                return

    def unlock(self, file: int) -> None:
        """See Disk."""
        fcntl.flock(file, fcntl.LOCK_UN)

    def is_at(self, file: int, path: Path) -> bool:
        """See Disk."""
        try:
            return os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False

    def read(self, file: int, offset: int) -> bytes:
        """See Disk."""
        parts: list[bytes] = []
        while part := os.pread(file, 1 << 20, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, file: int, offset: int, data: bytes) -> None:
        """See Disk."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(file, rest, offset)
            if written == 0:
                raise OSError(errno.EIO, "The file takes no more bytes")
            rest = rest[written:]
            offset += written

    def reserve(self, file: int, offset: int, length: int) -> None:
        """See Disk."""
        os.posix_fallocate(file, offset, length)

    def flush(self, file: int) -> None:
        """See Disk."""
        os.fsync(file)

    def link(self, old: Path, new: Path) -> None:
        """See Disk."""
        os.link(old, new)

    def rename(self, old: Path, new: Path) -> None:
        """See Disk."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """See Disk."""
        path.unlink()

    def names(self, folder: Path) -> list[str]:
        """See Disk."""
        try:
            return sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return []
