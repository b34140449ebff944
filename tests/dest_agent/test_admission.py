"""What does not fit is refused before anything is allocated, and no memory is promised twice."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import pytest

from dest_agent.admission import MOST_STREAMS, Admission, specification_in, streams_in
from dest_agent.agent import DestAgent
from dest_agent.destination_service import DestinationService
from tests.dest_agent.arrivals import MIB, SPECIFICATION, arriving, requirements
from tests.fakes.fake_machine import MACHINE
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, VERSION
from vm_migration.errors import InvalidInput, Refused
from vm_migration.handover.states import State
from vm_migration.link.served import Context
from vm_migration.machine.run_directory import RunDirectory
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.machine_state import STATE_FORMAT

OTHER = str(uuid4())


def asked(name: str = "another", machine: str = OTHER, size: int = 64) -> types_pb2.Requirements:
    found = requirements(name, machine)
    found.version, found.state_format, found.ram_bytes = VERSION, STATE_FORMAT, size * MIB
    return found


def codes(admission: Admission, wanted: types_pb2.Requirements) -> list[str]:
    return [each.code for each in admission.check(wanted)]


def test_a_machine_that_fits(tmp_path: Path) -> None:
    assert codes(Admission("host-b", SoftwareHypervisor(tmp_path), 64 * MIB), asked()) == []


def test_sizes_are_told_as_people_write_them(tmp_path: Path) -> None:
    for budget, left in ((48 * MIB, "48MiB"), (-MIB, "0B")):
        (found,) = Admission("host-b", SoftwareHypervisor(tmp_path), budget).check(asked())
        assert found.message == f"host-b has {left} left of its memory budget; 64MiB are needed"


def test_everything_that_speaks_against_it_is_said_at_once(tmp_path: Path) -> None:
    with arriving(tmp_path, State.READY) as machine:
        admission = Admission("host-b", machine.hypervisor, 100 * MIB)
        wanted = asked("fake")
        wanted.state_format += 1
        assert codes(admission, wanted) == ["version", "no-memory", "machine-exists"]
        assert codes(admission, asked("fake", MACHINE, 1)) == ["machine-exists"]
        assert codes(admission, asked(size=32)) == []
        machine.machine.end()
        assert codes(admission, asked("fake", MACHINE, 1)) == []


def test_only_so_many_machines_arrive_at_a_time(tmp_path: Path) -> None:
    arriving = {"one": object()}
    admission = Admission("host-b", SoftwareHypervisor(tmp_path), 100 * MIB, arriving, 2)
    with admission.place(asked(size=1)):
        another = asked("third", str(uuid4()), 1)
        assert codes(admission, another) == ["too-many-arrivals"]
        arriving.clear()
        assert codes(admission, another) == []


def test_memory_that_is_being_brought_up_is_not_given_away_twice(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    admission = Admission("host-b", SoftwareHypervisor(tmp_path), 100 * MIB)
    with admission.place(asked()):
        assert codes(admission, asked("third", str(uuid4()))) == ["no-memory"]
        directory = run.create(UUID(OTHER))  # its folder shows up: it is not counted twice
        (directory.path / "specification.json").write_bytes(SPECIFICATION)
        assert codes(admission, asked("third", str(uuid4()), 36)) == []
        with pytest.raises(Refused) as refusal, admission.place(asked("third", str(uuid4()))):
            pytest.fail("it does not fit")
        assert refusal.value.code == "no-memory"
    assert codes(admission, asked("third", str(uuid4()), 36)) == []
    directory.remove()
    assert codes(admission, asked("third", str(uuid4()))) == []


def test_a_specification_is_read_again_here() -> None:
    assert specification_in(requirements()).name == "fake"
    larger = requirements()
    larger.ram_bytes += 1
    with pytest.raises(InvalidInput) as caught:
        specification_in(larger)
    assert caught.value.code == "invalid-requirements"
    broken = requirements()
    broken.specification = b'{"name": "fake"}'
    with pytest.raises(InvalidInput) as caught:
        specification_in(broken)
    assert caught.value.code == "invalid-specification"


def test_room_is_made_for_as_many_streams_as_a_source_may_have() -> None:
    assert [streams_in(asked) for asked in (0, 1, MOST_STREAMS)] == [1, 1, MOST_STREAMS]


@pytest.mark.parametrize("asked", [MOST_STREAMS + 1, (1 << 32) - 1])
async def test_more_streams_are_refused_before_anything_is_done(asked: int) -> None:
    service = DestinationService(cast("DestAgent", None), "", "")
    with pytest.raises(InvalidInput) as refused:
        await service.Prepare(destination_pb2.PrepareRequest(streams=asked), cast("Context", None))
    assert str(asked) in refused.value.message


@dataclass
class WithRoom:
    """Stands for an agent that has room, and is asked for nothing else."""

    admission: Admission
    host: str = "host-b"


async def test_a_machine_that_is_to_send_itself_directly_is_refused_before_anything_is_done_where_that_cannot_be(
    tmp_path: Path,
) -> None:
    agent = WithRoom(Admission("host-b", SoftwareHypervisor(tmp_path), 100 * MIB))
    service, context = DestinationService(cast("DestAgent", agent), "", ""), cast("Context", None)
    wanted = asked()
    found = await service.CheckIncoming(destination_pb2.CheckIncomingRequest(requirements=wanted), context)
    assert list(found.blockers) == []
    wanted.features.append(DIRECT_MACHINE_STREAM)
    found = await service.CheckIncoming(destination_pb2.CheckIncomingRequest(requirements=wanted), context)
    (blocker,) = found.blockers
    assert (blocker.code, "or use --transport grpc" in blocker.message) == ("transport-not-offered", True)
    with pytest.raises(Refused) as refused:
        await service.Prepare(destination_pb2.PrepareRequest(requirements=wanted), context)
    assert (refused.value.code, refused.value.message) == (blocker.code, blocker.message)
    assert refused.value.hint == "See all of it: viaduct preflight another --to host-b"
