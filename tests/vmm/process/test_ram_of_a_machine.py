"""RAM is memory of its own, or a file that one machine process has at a time."""

import fcntl
from pathlib import Path

import pytest

from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.process.ram import MemoryInUse, make_ram
from vmm.update.suspended_machine import beside

MIB = 1 << 20


def backed_by(path: Path) -> MachineSpecification:
    memory = {"size": "64MiB", "backing": "file", "path": str(path)}
    return check_specification({"name": "m", "memory": memory, "viommu": {"model": "none"}}, "m")


def test_a_file_is_the_ram_of_one_machine_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    first = make_ram(backed_by(path))
    first.data[:4] = b"used"
    with pytest.raises(MemoryInUse):
        make_ram(backed_by(path))
    assert path.stat().st_size == 64 * MIB
    first.close()
    del first  # a mapping is as good as a descriptor
    again = make_ram(backed_by(path))
    assert bytes(again.data[:4]) == b"used"
    again.close()


@pytest.mark.parametrize("whole", [True, False])
def test_ram_in_which_a_suspended_machine_waits_is_nobody_elses(tmp_path: Path, *, whole: bool) -> None:
    path, waits = tmp_path / "ram", beside(tmp_path / "ram")
    waits.write_bytes(b"where it stood")
    if whole:
        path.write_bytes(b"ram")
    with pytest.raises(MemoryInUse, match=r"suspended machine that waits .*ram\.suspended"):
        make_ram(backed_by(path))
    assert path.read_bytes() == b"ram" if whole else not path.exists()
    with path.open("wb") as ram:
        ram.truncate(64 * MIB)
    make_ram(backed_by(path), left=True).close()
    waits.unlink()
    make_ram(backed_by(path)).close()


def test_who_leaves_a_machine_and_ends_leaves_its_ram_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the lock when another machine is started, and is gone when that one asks for it."""
    path, locked = tmp_path / "ram", fcntl.flock

    def left_meanwhile(descriptor: int, operation: int) -> None:
        beside(path).write_bytes(b"where it stood")
        locked(descriptor, operation)

    path.write_bytes(b"ram")
    monkeypatch.setattr(fcntl, "flock", left_meanwhile)
    with pytest.raises(MemoryInUse, match="waits"):
        make_ram(backed_by(path))
    assert path.read_bytes() == b"ram"


def test_without_a_file_it_is_memory_of_its_own() -> None:
    specification = check_specification({"name": "m", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}, "m")
    first, second = make_ram(specification), make_ram(specification)
    first.data[:4] = b"used"
    assert bytes(second.data[:4]) == bytes(4)
    first.close()
    second.close()


def test_a_path_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        make_ram(backed_by(tmp_path / "missing" / "ram"))
