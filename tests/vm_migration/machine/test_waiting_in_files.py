"""Whether a machine waits in files: what is there counts, and what is absent only where it was."""

import errno
import os
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.vmm.update.test_suspended_machine import MACHINE, STATE, in_a_file
from vm_migration.machine import software_succession, waiting_in_files
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.machine.software_succession import SoftwareSuccession
from vm_migration.machine.waiting_in_files import VOLATILE, WaitingPlace, waiting_place, waits
from vmm.assembly.specification import MachineSpecification
from vmm.update.suspended_machine import write

PAUSE = STATE.pause


@pytest.fixture
def specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineSpecification:
    """A machine whose RAM is on a file system that outlives a restart."""
    monkeypatch.setattr(waiting_in_files, "kind_of_file_system", lambda _: "xfs")
    folder = tmp_path / "dax"
    folder.mkdir()
    return in_a_file(folder / "ram")


def left(specification: MachineSpecification, machine: str = MACHINE) -> WaitingPlace:
    """Have a machine wait."""
    place = waiting_place(specification)
    assert place is not None
    assert specification.memory.path is not None
    with Path(specification.memory.path).open("wb") as ram:
        ram.truncate(specification.memory.size)
    write(place.path, machine, specification.memory.size, STATE)
    return place


def test_a_machine_waits_since_its_stop(specification: MachineSpecification) -> None:
    place = left(specification)
    assert place.path.name == "ram.suspended"
    assert waits(UUID(MACHINE), specification, place, PAUSE) is True
    assert waits(UUID(MACHINE), specification, place, PAUSE + 1) is None
    assert waits(uuid4(), specification, place, PAUSE) is None


@pytest.mark.parametrize("name", ["ram", "ram.suspended"])
def test_what_is_gone_from_the_folder_that_it_was_in_waits_no_more(
    specification: MachineSpecification, name: str
) -> None:
    place = left(specification)
    (place.path.parent / name).unlink()
    assert waits(UUID(MACHINE), specification, place, PAUSE) is False


def test_nothing_is_concluded_of_a_file_system_that_is_not_mounted_yet(specification: MachineSpecification) -> None:
    place = left(specification)
    folder = place.path.parent
    folder.rename(folder.with_name("unmounted"))
    assert waits(UUID(MACHINE), specification, place, PAUSE) is None
    folder.mkdir()
    assert waits(UUID(MACHINE), specification, place, PAUSE) is None
    folder.rmdir()
    folder.with_name("unmounted").rename(folder)
    assert waits(UUID(MACHINE), specification, place, PAUSE) is True


def test_what_was_in_memory_only_is_gone_with_it(
    specification: MachineSpecification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_in_files, "kind_of_file_system", lambda _: "tmpfs")
    place = left(specification)
    assert place.home == VOLATILE
    place.path.parent.rename(place.path.parent.with_name("before"))
    place.path.parent.mkdir()
    assert waits(UUID(MACHINE), specification, place, PAUSE) is False


async def test_an_operator_is_believed_that_a_file_system_is_gone_but_no_more(
    specification: MachineSpecification, tmp_path: Path
) -> None:
    place, succession = left(specification), SoftwareSuccession(tmp_path / "run")
    machine = SoftwareHypervisor(tmp_path / "run").of(UUID(MACHINE))
    document = specification.to_json().decode()

    async def found() -> list[bool | None]:
        before = await succession.waits(machine, document, place, PAUSE)
        with succession.believing(machine.machine):
            said = await succession.waits(machine, document, place, PAUSE)
        return [before, said, await succession.waits(machine, document, place, PAUSE)]

    assert await found() == [True, True, True]
    folder = place.path.parent
    folder.rename(folder.with_name("unmounted"))
    assert await found() == [None, False, None]
    folder.mkdir()
    assert await found() == [None, False, None]
    folder.rmdir()
    folder.with_name("unmounted").rename(folder)
    place.path.write_bytes(b"another")
    assert await found() == [None, None, None]


async def test_an_operator_is_believed_for_as_long_as_any_of_those_who_say_it_is_served(
    specification: MachineSpecification, tmp_path: Path
) -> None:
    place, succession = left(specification), SoftwareSuccession(tmp_path / "run")
    machine = SoftwareHypervisor(tmp_path / "run").of(UUID(MACHINE))
    document = specification.to_json().decode()
    place.path.parent.rename(place.path.parent.with_name("unmounted"))
    with succession.believing(machine.machine):
        with succession.believing(machine.machine):
            pass
        assert await succession.waits(machine, document, place, PAUSE) is False
    assert await succession.waits(machine, document, place, PAUSE) is None


@pytest.mark.parametrize("fault", [errno.ESTALE, errno.EIO, errno.ENOENT])
def test_nothing_is_concluded_of_a_folder_that_cannot_be_told(
    specification: MachineSpecification, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """Neither where the machine was left there, nor where it is looked for now: two unknown ones are not the same."""
    known = left(specification)

    def fails(_: object) -> None:
        raise OSError(fault, "As asked")

    monkeypatch.setattr(os, "statvfs", fails)
    unknown = left(specification)
    assert (bool(known.home), unknown.home) == (True, "")
    known.path.unlink()
    assert [waits(UUID(MACHINE), specification, each, PAUSE) for each in (known, unknown)] == [None, None]


async def test_files_that_nobody_answers_for_are_looked_at_once_and_nothing_is_concluded(
    specification: MachineSpecification, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place, answers = left(specification), threading.Event()
    looks: list[None] = []

    def hangs(*_: object, **__: object) -> bool:
        looks.append(None)
        answers.wait()
        return True

    monkeypatch.setattr(software_succession, "waits", hangs)
    monkeypatch.setattr(software_succession, "LOOK_SECONDS", 0.01)
    succession = SoftwareSuccession(tmp_path / "run")
    machine = SoftwareHypervisor(tmp_path / "run").of(UUID(MACHINE))
    document = specification.to_json().decode()
    try:
        assert [await succession.waits(machine, document, place, PAUSE) for _ in range(3)] == [None] * 3
        assert looks == [None]
    finally:
        answers.set()
    monkeypatch.setattr(software_succession, "LOOK_SECONDS", 60.0)
    assert await succession.waits(machine, document, place, PAUSE) is True


@pytest.mark.parametrize("spoilt", ["ram", "ram.suspended"])
def test_what_is_not_as_it_was_left_is_for_a_person(specification: MachineSpecification, spoilt: str) -> None:
    place = left(specification)
    (place.path.parent / spoilt).write_bytes(b"another")
    assert waits(UUID(MACHINE), specification, place, PAUSE) is None


def test_memory_of_its_own_waits_nowhere(specification: MachineSpecification) -> None:
    memory = specification.memory.model_copy(update={"backing": "memfd", "path": None})
    assert waiting_place(specification.model_copy(update={"memory": memory})) is None
