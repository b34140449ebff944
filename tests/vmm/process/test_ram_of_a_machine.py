"""RAM is memory of its own, or a file that one machine process has at a time."""

from pathlib import Path

import pytest

from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.process.ram import MemoryInUse, make_ram

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
