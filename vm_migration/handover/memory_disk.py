"""A disk in memory that can lose power, fail and run full at any step: for rehearsals of everything with a journal.

It keeps what was written apart from what would survive. Sectors that were written and not flushed survive a loss of
power or not, each by itself; names likewise, in the order in which they were made. A failed flush leaves the data
readable but marked as clean, as Linux does: a later flush does not save it unless it is written again.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512


class PowerLost(Exception):
    """The host went down at this step; no operation answers until `restart`."""


Snapshot = dict[Path, bytes]
"""What a disk held at one moment."""


@dataclass(slots=True)
class _Content:
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    allocated: int = 0

    def save(self, sector: int) -> None:
        """Bring one sector to the platter."""
        part = self.cached[sector * SECTOR : (sector + 1) * SECTOR]
        missing = sector * SECTOR + len(part) - len(self.durable)
        if missing > 0:
            self.durable.extend(bytes(missing))
        self.durable[sector * SECTOR : sector * SECTOR + len(part)] = part


class MemoryDisk:
    """Passes the same contract tests as RealDisk. `steps` counts the operations that change something."""

    def __init__(self, *, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.steps = 0
        self.lose_power_at: int | None = None
        self.failures: dict[int, int] = {}
        """Step number -> errno: that step fails."""
        self._names: dict[Path, _Content] = {}
        self._durable_names: dict[Path, _Content] = {}
        self._name_changes: list[dict[Path, _Content | None]] = []
        self._files: dict[int, _Content | Path] = {}
        self._locks: dict[int, int] = {}
        self._last_file = 0
        self._off = False

    def restart(self, keep: Callable[[int], bool], *, names_kept: int = 0) -> None:
        """Come back after a loss of power.

        `keep` says for each sector that was not flushed, by a running number, whether it survived; the first
        `names_kept` unflushed changes of names survive too.
        """
        for change in self._name_changes[:names_kept]:
            _apply(self._durable_names, change)
        number = 0
        for content in {id(content): content for content in self._durable_names.values()}.values():
            for sector in sorted(content.dirty):
                if keep(number):
                    content.save(sector)
                number += 1
            content.cached = bytearray(content.durable)
            content.dirty.clear()
            content.allocated = len(content.durable)
        self._names = dict(self._durable_names)
        self._name_changes.clear()
        self.end_processes()
        self._off = False
        self.lose_power_at = None
        self.failures.clear()

    def durable(self, path: Path) -> bytes:
        """Return what would be left of a file if power were lost now, and nothing that was not flushed survived.

        Raises:
            FileNotFoundError: Its name would not.
        """
        if path not in self._durable_names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return bytes(self._durable_names[path].durable)

    def snapshot(self) -> Snapshot:
        """Return what the disk holds, as a host's snapshot keeps it: all that is readable, flushed or not."""
        return {path: bytes(content.cached) for path, content in self._names.items()}

    def roll_back(self, snapshot: Snapshot) -> None:
        """Hold again what a snapshot held, durably; files made since are gone. No process may have one open."""
        self.end_processes()
        self._names = {
            path: _Content(bytearray(data), bytearray(data), set(), len(data)) for path, data in snapshot.items()
        }
        self._durable_names = dict(self._names)
        self._name_changes.clear()

    def end_processes(self) -> None:
        """Every process dies at once and the host stays up: files are closed, locks given back, nothing is lost."""
        self._files.clear()
        self._locks.clear()

    def open(self, path: Path) -> int:
        """See Disk."""
        self._require_power()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return self._hold(self._names[path])

    def create(self, path: Path) -> int:
        """See Disk."""
        self._step()
        content = _Content()
        self._change_names({path: content})
        return self._hold(content)

    def open_folder(self, folder: Path) -> int:
        """See Disk."""
        self._require_power()
        return self._hold(folder)

    def close(self, file: int) -> None:
        """See Disk."""
        self.unlock(file)
        self._files.pop(file, None)

    def lock(self, file: int) -> None:
        """See Disk; there is nobody to wait for in one thread, so a held lock is refused at once."""
        self._require_power()
        key = self._lock_key(file)
        if self._locks.setdefault(key, file) != file:
            raise BlockingIOError(errno.EAGAIN, "Locked")

    def unlock(self, file: int) -> None:
        """See Disk."""
        for key, holder in list(self._locks.items()):
            if holder == file:
                del self._locks[key]

    def is_at(self, file: int, path: Path) -> bool:
        """See Disk."""
        self._require_power()
        return self._names.get(path) is self._files[file]

    def read(self, file: int, offset: int) -> bytes:
        """See Disk."""
        self._require_power()
        return bytes(self._content(file).cached[offset:])

    def write(self, file: int, offset: int, data: bytes) -> None:
        """See Disk. A failing step writes the first half."""
        content = self._content(file)
        try:
            self._step()
        except OSError:
            self._put(content, offset, data[: len(data) // 2])
            raise
        room = self._allocate(content, offset + len(data)) - offset
        self._put(content, offset, data[: max(room, 0)])
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def reserve(self, file: int, offset: int, length: int) -> None:
        """See Disk."""
        self._step()
        content = self._content(file)
        if self._allocate(content, offset + length) < offset + length:
            raise OSError(errno.ENOSPC, "No space left on device")
        content.cached.extend(bytes(max(offset + length - len(content.cached), 0)))

    def flush(self, file: int) -> None:
        """See Disk."""
        target = self._files.get(file)
        try:
            self._step()
        except OSError:
            if isinstance(target, _Content):
                target.dirty.clear()
            raise
        if isinstance(target, _Content):
            for sector in target.dirty:
                target.save(sector)
            target.dirty.clear()
        else:
            self._durable_names = dict(self._names)
            self._name_changes.clear()

    def link(self, old: Path, new: Path) -> None:
        """See Disk."""
        self._step()
        if new in self._names:
            raise FileExistsError(errno.EEXIST, "File exists", str(new))
        self._change_names({new: self._names[old]})

    def rename(self, old: Path, new: Path) -> None:
        """See Disk."""
        self._step()
        self._change_names({new: self._names[old], old: None})

    def unlink(self, path: Path) -> None:
        """See Disk."""
        self._step()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        self._change_names({path: None})

    def names(self, folder: Path) -> list[str]:
        """See Disk."""
        self._require_power()
        return sorted(path.name for path in self._names if path.parent == folder)

    def _step(self) -> None:
        self._require_power()
        self.steps += 1
        if self.steps == self.lose_power_at:
            self._off = True
        self._require_power()
        if self.steps in self.failures:
            raise OSError(self.failures[self.steps], "As asked")

    def _require_power(self) -> None:
        if self._off:
            raise PowerLost

    def _hold(self, target: _Content | Path) -> int:
        self._last_file += 1
        self._files[self._last_file] = target
        return self._last_file

    def _content(self, file: int) -> _Content:
        self._require_power()
        target = self._files[file]
        if isinstance(target, Path):
            raise IsADirectoryError(errno.EISDIR, "Is a folder", str(target))
        return target

    def _lock_key(self, file: int) -> int:
        target = self._files[file]
        return hash(target) if isinstance(target, Path) else id(target)

    def _change_names(self, change: dict[Path, _Content | None]) -> None:
        self._name_changes.append(change)
        _apply(self._names, change)

    def _allocate(self, content: _Content, end: int) -> int:
        """Give the content room up to `end`, or as far as the disk goes; answers with where its room ends."""
        if self.capacity is not None and end > content.allocated:
            used = sum(found.allocated for found in {id(each): each for each in self._names.values()}.values())
            end = min(end, content.allocated + max(self.capacity - used, 0))
        content.allocated = max(content.allocated, end)
        return content.allocated

    @staticmethod
    def _put(content: _Content, offset: int, data: bytes) -> None:
        content.cached.extend(bytes(max(offset + len(data) - len(content.cached), 0)))
        content.cached[offset : offset + len(data)] = data
        content.dirty.update(range(offset // SECTOR, (offset + len(data) + SECTOR - 1) // SECTOR))


def _apply(names: dict[Path, _Content], change: dict[Path, _Content | None]) -> None:
    for path, content in change.items():
        if content is None:
            names.pop(path, None)
        else:
            names[path] = content
