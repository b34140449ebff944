"""A machine whose stream passes this agent by: its source's calls are all that is heard of it."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from dest_agent import stream_door
from dest_agent.agent import ARRIVAL_PATIENCE
from dest_agent.destination_service import DestinationService
from dest_agent.stream_arrival import StreamArrival
from dest_agent.stream_door import StreamDoor
from tests.dest_agent.arrivals import KEY, A, arriving
from tests.dest_agent.watched import Watched, watched
from tests.fakes.fake_machine import MACHINE
from tests.fakes.streaming_machine import StreamingMachine
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.handover.custody import Custody
from vm_migration.handover.states import State
from vm_migration.link.identity import Identity, Role
from vm_migration.link.served import Context
from vm_migration.machine.errors import MachineRefused

HEARTBEAT = 2.0
LONG = int((ARRIVAL_PATIENCE + 60.0) / HEARTBEAT)


class Caller:
    """Whose certificate a call has shown, as gRPC tells it."""

    def __init__(self, role: Role, name: str) -> None:
        self._uri = Identity("test", role, name).uri.encode()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [b"ssl"], "peer_dns": [], "peer_uri": [self._uri], "x509_pem_cert": []}


def arrival_at(host: Watched) -> StreamArrival:
    return StreamArrival(host.machine.custody, "host-a", b"t", path=host.machine.folder / "in", most=1)


async def asked_for_long(host: Watched, caller: Caller | None) -> list[tuple[State, str]]:
    """Return what the arrival was, and what was complained of, behind each heartbeat; its source is never reached."""
    agent = host.new_agent()
    custody = host.machine.custody
    agent.holdings.arriving[A] = arrival_at(host)
    agent._vigil.watch(MACHINE)
    service = DestinationService(agent, "", "")
    key = types_pb2.AttemptKey(machine=MACHINE, attempt=A, epoch=KEY.epoch, term=KEY.term)
    seen: list[tuple[State, str]] = []
    try:
        for _ in range(LONG):
            await asyncio.sleep(HEARTBEAT)  # virtual time
            if caller is not None:
                request = destination_pb2.DescribeIncomingRequest(key=key)
                await service.DescribeIncoming(request, cast("Context", caller))
            seen.append((custody.record.state, agent.complaint(MACHINE)))
        return seen
    finally:
        await agent.stop()


def looked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: Caller | None) -> list[tuple[State, str]]:
    async def scenario(_loop: VirtualLoop) -> list[tuple[State, str]]:
        return await asked_for_long(host, caller)

    with arriving(tmp_path, State.PREPARED) as machine, watched(machine, monkeypatch) as host:
        return in_virtual_time(scenario)


def test_one_whose_source_asks_about_it_is_waited_for_and_nobody_complains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = looked_after(tmp_path, monkeypatch, Caller(Role.HOST, "host-a"))
    assert set(seen) == {(State.PREPARED, "")}


@pytest.mark.parametrize(
    "caller",
    [None, Caller(Role.ORCHESTRATOR, "host-a"), Caller(Role.OPERATOR, "host-a"), Caller(Role.HOST, "host-c")],
    ids=["nobody", "orchestrator", "operator", "another-host"],
)
def test_one_about_which_its_source_is_silent_is_given_up_whoever_else_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: Caller | None
) -> None:
    seen = looked_after(tmp_path, monkeypatch, caller)
    assert any(said.startswith("handover-waiting: ") for _, said in seen)
    assert seen[-1] == (State.DISCARDED, "")


@pytest.mark.parametrize("fails", [True, False])
def test_one_into_which_nothing_comes_is_let_go_also_where_it_cannot_be_taken_away_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async def refused(custody: Custody, *, silent: bool = False) -> None:
        raise MachineRefused(f"Somebody is filling its place ({custody.record.machine}, {silent})")

    async def scenario(_loop: VirtualLoop) -> bool:
        agent = host.new_agent()
        arrival = agent.holdings.arriving[A] = arrival_at(host)
        await StreamDoor(agent.holdings, "127.0.0.1", None)._require_begun(arrival)
        assert agent.holdings.arriving == {}
        assert host.last.state is State.DISCARDED
        there = not host.freed
        agent._vigil.watch(MACHINE)  # whoever filled it has gone
        await asyncio.sleep(60.0)  # virtual time
        assert host.freed
        await agent.stop()
        return there

    with arriving(tmp_path, State.PREPARED) as machine, watched(machine, monkeypatch) as host:
        process = machine.machine.process
        machine.machine = machine.custody.port = StreamingMachine(process, incoming=True, says=[("setup", "inmigrate")])
        if fails:
            monkeypatch.setattr(stream_door, "free", refused)
        assert in_virtual_time(scenario) is fails
