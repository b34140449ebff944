"""From the gate to READY: only a process that says, after READY came, that it sent all and stands still is released."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.own_stream.carriers import Carrier
from source_agent.own_stream.course import StreamCourse
from source_agent.own_stream.gate import Gate
from source_agent.own_stream.memory import HashedMemory, hashed_memory
from source_agent.own_stream.passes import Passes
from source_agent.surroundings import Surroundings
from source_agent.switchover import PagesDiffer, Ready
from tests.fakes.fake_machine import Held
from tests.fakes.streaming_machine import Said, StreamingMachine
from tests.source_agent.departures import TERMS, leaving
from vm_migration.api.v1 import destination_pb2
from vm_migration.errors import AttemptFailed, MigrationError, Unreachable
from vm_migration.handover.evidence import InstanceGone
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone
from vmm.process.identity import boot_id
from vmm.process.own_stream import StreamState

BOUND = 1000
SENT: Said = ("completed", "postmigrate")


class Drained:
    """Stands for connections that are over."""

    async def drained(self) -> None:
        return


class Finishing:
    """Stands for a destination that is asked to finish once."""

    def __init__(self, *, differ: int = 0, silent: bool = False) -> None:
        self.asked: list[destination_pb2.FinishRequest] = []
        self.peer = "host-b"
        self._differ, self._silent = differ, silent

    async def finish(self, request: destination_pb2.FinishRequest, deadline: float) -> destination_pb2.FinishResponse:
        self.asked.append(request)
        if self._silent:
            raise Unreachable("deadline", "host-b did not answer in time")
        return destination_pb2.FinishResponse(
            pause=request.pause, ready=not self._differ, pages_mismatched=self._differ
        )


async def nothing() -> None:
    pass


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    """Have a machine whose own stream has come to its gate."""
    with leaving(tmp_path, State.OUTGOING) as found:
        machine = StreamingMachine(found.machine.process, running=False)
        found.machine = found.custody.port = machine
        yield found


def says(held: Held, *said: Said | None) -> StreamingMachine:
    machine = cast("StreamingMachine", held.machine)
    machine.says = list(said)
    return machine


def gate_of(held: Held, finishing: Finishing, memory: HashedMemory | None = None) -> Gate:
    account = Account(held.custody, TERMS, Surroundings(None, nothing, 1e9, boot_id()))
    link, carrier = cast("DestinationLink", finishing), cast("Carrier", Drained())
    return Gate(account, link, carrier, memory or HashedMemory(None), Passes(0))


async def test_the_stop_is_durable_before_the_process_goes_on(held: Held) -> None:
    machine, finishing = says(held, ("device", "finish-migrate"), ("completed", "finish-migrate"), SENT), Finishing()
    memory = await hashed_memory(machine, verify=True)
    seen: list[State] = []
    machine.before_answer = lambda _left: seen.append(held.custody.record.state)
    gate = gate_of(held, finishing, memory)
    ready = await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert set(seen) == {State.STOPPED}
    assert (held.custody.record.pause, held.custody.record.pause_bound_ms, ready.stop.pause) == (1, BOUND, 1)
    assert machine.calls.index("pause for an attempt") < machine.calls.index("continue stream")
    assert machine.patience_ms == BOUND, "its last pass may take as long as the stop"
    (request,) = finishing.asked
    assert (request.pause, request.was_running, request.verify, request.spans.pages) == (1, True, True, 1)
    memory.close()


async def test_a_pass_that_ended_past_the_gate_is_the_last_round_and_none_is_left_out(held: Held) -> None:
    machine = says(held, SENT)
    machine.transferred, machine.passes = 8 << 20, 2
    gate = gate_of(held, Finishing())
    ready = await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert (ready.last_round.round, ready.last_round.wire_bytes) == (0, 8 << 20)
    assert gate.passes.closed(ready.last_round_ns).round == 1


def at_gate(held: Held, hooks: Callable[[], Awaitable[None]]) -> Awaitable[Ready]:
    """Go on from the gate with these hooks."""
    account = Account(held.custody, TERMS, Surroundings(None, hooks, 1e9, boot_id()))
    course = StreamCourse(account, cast("DestinationLink", Finishing()), b"")
    standing = StreamState(status="pre-switchover", run_status="paused", running=False, pause=0)
    return course._through(standing, gate_of(held, Finishing()))


async def test_hooks_run_behind_a_durable_stop_and_before_the_process_goes_on(held: Held) -> None:
    machine, seen = says(held, SENT), list[tuple[State, bool]]()

    async def hooks() -> None:
        seen.append((held.custody.record.state, "continue stream" in machine.calls))

    await at_gate(held, hooks)
    assert seen == [(State.STOPPED, False)]
    assert "continue stream" in machine.calls


async def test_hooks_that_take_longer_than_the_stop_may_end_the_attempt(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = says(held, SENT)
    loop = asyncio.get_running_loop()
    late = loop.time() + 3600

    async def hooks() -> None:
        monkeypatch.setattr(loop, "time", lambda: late)
        await asyncio.Event().wait()

    with pytest.raises(AttemptFailed, match="hooks of before_handoff included") as failure:
        await at_gate(held, hooks)
    assert failure.value.code == "pause-bound"
    assert held.custody.record.state is State.STOPPED
    assert "continue stream" not in machine.calls


async def test_before_all_was_sent_the_destination_is_not_asked(held: Held) -> None:
    finishing = Finishing()
    says(held, ("device", "finish-migrate"), ("failed", "running"))
    gate = gate_of(held, finishing)
    with pytest.raises(AttemptFailed) as failure:
        await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert failure.value.code == "stream-failed"
    assert finishing.asked == []


@pytest.mark.parametrize(
    "afterwards",
    [
        ("failed", "running"), ("completed", "running"), ("failed", "postmigrate"), ("cancelled", "paused"),
        ("completed", "paused"), ("none", "postmigrate"), ("none", "running"), ("", ""), ("completed", "inmigrate"),
    ],
    ids="-".join,
)  # fmt: skip
async def test_a_process_that_says_anything_else_after_ready_came_is_not_released(held: Held, afterwards: Said) -> None:
    """What it said before counts for nothing: QEMU runs a guest whose stream failed again by itself."""
    finishing = Finishing()
    says(held, SENT, afterwards)
    gate = gate_of(held, finishing)
    with pytest.raises(AttemptFailed) as failure:
        await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert failure.value.code == "stream-failed"
    assert len(finishing.asked) == 1


async def test_a_process_that_is_silent_after_ready_came_is_not_released(held: Held) -> None:
    says(held, SENT, None)
    gate = gate_of(held, Finishing())
    with pytest.raises(MachineGone):
        await gate.make_ready(await gate.stop(BOUND), BOUND)


async def test_of_a_process_that_is_gone_after_ready_came_the_proof_is_what_counts(held: Held) -> None:
    """The only whole copy is the destination's then."""
    machine = says(held, SENT)

    class Ending(Finishing):
        async def finish(
            self, request: destination_pb2.FinishRequest, deadline: float
        ) -> destination_pb2.FinishResponse:
            machine.end()
            return await super().finish(request, deadline)

    gate = gate_of(held, Ending())
    ready = await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert isinstance(ready.process, InstanceGone)


@pytest.mark.parametrize(
    ("finishing", "kind"), [(Finishing(differ=3), PagesDiffer), (Finishing(silent=True), Unreachable)]
)
async def test_without_a_ready_nothing_is_ready(held: Held, finishing: Finishing, kind: type[MigrationError]) -> None:
    says(held, SENT)
    gate = gate_of(held, finishing)
    with pytest.raises(kind):
        await gate.make_ready(await gate.stop(BOUND), BOUND)


async def test_memory_that_is_not_handed_out_is_not_compared_and_says_so(held: Held) -> None:
    machine, finishing = says(held, SENT), Finishing()
    machine.hands_out_ram = False
    memory = await hashed_memory(machine, verify=True)
    assert (memory.verified_by, memory.why_not) == ("none", "Its memory is its own")
    gate = gate_of(held, finishing, memory)
    await gate.make_ready(await gate.stop(BOUND), BOUND)
    assert not finishing.asked[0].verify


async def test_connections_that_are_not_over_hold_the_end_up(held: Held) -> None:
    class Endless(Drained):
        async def drained(self) -> None:
            await asyncio.Event().wait()

    says(held, SENT)
    gate = gate_of(held, finishing := Finishing())
    gate = Gate(gate.account, gate.link, cast("Carrier", Endless()), gate.memory, gate.passes)
    stop = await gate.stop(BOUND)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.make_ready(stop, BOUND), 0.1)
    assert finishing.asked == []
