"""One process's hands on its host's disk: they fall off when it dies, also in the middle of an operation."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.simulation.virtual_loop import Process, ProcessKilled
from vm_migration.handover.memory_disk import MemoryDisk

Operated = Callable[[str, Path | None], None]
"""Told of each operation that has changed something: what it was, and of which file."""


class ProcessDisk:
    """Implements vm_migration.handover.disk.Disk over a host's MemoryDisk."""

    def __init__(self, disk: MemoryDisk, process: Process, operated: Operated) -> None:
        self._disk: Final = disk
        self._process: Final = process
        self._operated: Final = operated
        self._die_in = 0
        self._end: Callable[[], None] = lambda: None
        self._files: Final[dict[int, Path]] = {}
        process.at_death[self] = self._let_go

    def die_at(self, operation: int, end: Callable[[], None]) -> None:
        """Have `end` kill the process at its so manieth operation from now that changes something, counted from 1."""
        self._die_in, self._end = operation, end

    def open(self, path: Path) -> int:
        """See Disk."""
        self._require_life()
        return self._held(self._disk.open(path), path)

    def create(self, path: Path) -> int:
        """See Disk."""
        self._step()
        return self._held(self._disk.create(path), path)

    def open_folder(self, folder: Path) -> int:
        """See Disk."""
        self._require_life()
        return self._held(self._disk.open_folder(folder), folder)

    def close(self, file: int) -> None:
        """See Disk."""
        if self._files.pop(file, None) is not None:
            self._disk.close(file)

    def lock(self, file: int) -> None:
        """See Disk."""
        self._require_life()
        self._disk.lock(file)

    def unlock(self, file: int) -> None:
        """See Disk."""
        if file in self._files:
            self._disk.unlock(file)

    def is_at(self, file: int, path: Path) -> bool:
        """See Disk."""
        self._require_life()
        return self._disk.is_at(file, path)

    def read(self, file: int, offset: int) -> bytes:
        """See Disk."""
        self._require_life()
        return self._disk.read(file, offset)

    def write(self, file: int, offset: int, data: bytes) -> None:
        """See Disk. A process that dies here has written the first half."""
        if self._dies():
            self._disk.write(file, offset, data[: len(data) // 2])
            self._die()
        self._require_life()
        self._disk.write(file, offset, data)
        self._operated("write", self._files.get(file))

    def reserve(self, file: int, offset: int, length: int) -> None:
        """See Disk."""
        self._step()
        self._disk.reserve(file, offset, length)

    def flush(self, file: int) -> None:
        """See Disk."""
        self._step()
        self._disk.flush(file)
        self._operated("flush", self._files.get(file))

    def link(self, old: Path, new: Path) -> None:
        """See Disk."""
        self._step()
        self._disk.link(old, new)

    def rename(self, old: Path, new: Path) -> None:
        """See Disk."""
        self._step()
        self._disk.rename(old, new)

    def unlink(self, path: Path) -> None:
        """See Disk."""
        self._step()
        self._disk.unlink(path)

    def names(self, folder: Path) -> list[str]:
        """See Disk."""
        self._require_life()
        return self._disk.names(folder)

    def _held(self, file: int, path: Path) -> int:
        self._files[file] = path
        return file

    def _step(self) -> None:
        if self._dies():
            self._die()
        self._require_life()

    def _dies(self) -> bool:
        if not self._die_in or not self._process.alive:
            return False
        self._die_in -= 1
        return not self._die_in

    def _die(self) -> None:
        self._end()
        raise ProcessKilled

    def _require_life(self) -> None:
        if not self._process.alive:
            raise ProcessKilled

    def _let_go(self) -> None:
        for file in list(self._files):
            self._files.pop(file)
            self._disk.close(file)
