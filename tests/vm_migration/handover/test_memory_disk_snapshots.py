"""A disk in memory that a snapshot of its host rolls back, and what of it would survive a loss of power."""

from pathlib import Path

import pytest

from vm_migration.handover.memory_disk import MemoryDisk

FILE = Path("/folder/file")


def written(disk: MemoryDisk, path: Path, data: bytes, *, flushed: bool = True) -> None:
    file = disk.create(path)
    disk.write(file, 0, data)
    if flushed:
        disk.flush(file)
        names = disk.open_folder(path.parent)
        disk.flush(names)
        disk.close(names)
    disk.close(file)


def read(disk: MemoryDisk, path: Path) -> bytes:
    return disk.read(disk.open(path), 0)


def test_what_was_not_flushed_is_not_durable() -> None:
    disk = MemoryDisk()
    written(disk, FILE, b"old")
    file = disk.open(FILE)
    disk.write(file, 0, b"new")
    assert read(disk, FILE) == b"new"
    assert disk.durable(FILE) == b"old"
    disk.flush(file)
    assert disk.durable(FILE) == b"new"


def test_a_name_that_was_not_flushed_is_not_durable() -> None:
    disk = MemoryDisk()
    written(disk, FILE, b"old", flushed=False)
    with pytest.raises(FileNotFoundError):
        disk.durable(FILE)


def test_a_snapshot_brings_back_what_was_there_and_nothing_else() -> None:
    disk = MemoryDisk()
    written(disk, FILE, b"old")
    snapshot = disk.snapshot()
    written(disk, FILE, b"newer")
    written(disk, Path("/folder/other"), b"made since")
    disk.roll_back(snapshot)
    assert read(disk, FILE) == b"old"
    assert disk.names(FILE.parent) == [FILE.name]
    disk.restart(lambda _sector: False)
    assert read(disk, FILE) == b"old"
