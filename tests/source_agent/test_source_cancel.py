"""Cancel wins within a second wherever an attempt stands before the point of no return."""

import asyncio
import socket
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from source_agent.outgoing_attempt import OutgoingAttempt
from source_agent.progress import Outcome, Phase
from tests.fakes.fake_machine import Held
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import TERMS, A
from tests.source_agent.journeys import MANY_PAGES, SlowMachine, departing, running, until
from tests.system.processes import ended
from vm_migration.daemon.hooks import HookContext, HookPoint, run_hooks
from vm_migration.errors import Refused
from vm_migration.handover.states import State
from vmm.process.control import Description

WINS_WITHIN = 5.0
"""Seconds; a second but where this machine is busy with other things. Who waits for a frozen process takes 20."""
PATIENT = msgspec.structs.replace(TERMS, downtime_limit_ms=5_000)
"""The pause's bound, of 15 s, ends nothing before a cancel does."""


async def cancelled_at_once(held: Held, attempt: OutgoingAttempt, task: "asyncio.Task[None]") -> None:
    """Cancel, and check what is durable when that is answered, and what has become of the guest."""
    asked = monotonic()
    await attempt.cancelled(10)
    assert held.journals.read_last(held.custody.record.machine).state is State.ABORTED
    assert monotonic() - asked < WINS_WITHIN
    await task
    shown = attempt.board.progress
    assert (shown.phase, shown.outcome) == (Phase.ABORTED, Outcome.CANCELLED)
    assert held.machine.running
    assert held.custody.record.run_confirmed
    await attempt.cancelled(0)  # asked again, nothing changes


async def test_while_nobody_has_started_it(tmp_path: Path) -> None:
    with departing(tmp_path) as (held, _):
        async with running(held, "") as (attempt, task):
            await until(attempt, Phase.BEGUN)
            await cancelled_at_once(held, attempt, task)


async def test_while_nothing_of_the_destination_is_heard(tmp_path: Path) -> None:
    with departing(tmp_path) as (held, _), socket.create_server(("127.0.0.1", 0)) as silent:
        async with running(held, f"127.0.0.1:{silent.getsockname()[1]}") as (attempt, task):
            await until(attempt, Phase.PRE_COPY)
            await cancelled_at_once(held, attempt, task)


@pytest.mark.parametrize("halts", ["open 0", "pages 0", "barrier 0", "open 1", "barrier 1", "finish"])
async def test_while_the_destination_does_not_act(tmp_path: Path, halts: str) -> None:
    """In the rounds a write is blocked, or a barrier; `open 1` and what follows come while the guest stands still."""
    with departing(tmp_path, MANY_PAGES) as (held, machine):
        there = ReceivingDestination(attempt=A, pages=MANY_PAGES, halts=halts)
        async with receiving(there), running(held, there.address, terms=PATIENT) as (attempt, task):
            await there.halted.wait()
            assert machine.running is halts.endswith("0")
            await cancelled_at_once(held, attempt, task)


async def test_while_a_hook_runs_which_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    command = ("sh", "-c", f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 60")

    async def hook() -> None:
        context = HookContext(attempt=A, machine=A, epoch=2, host="host-a")
        await run_hooks(HookPoint.BEFORE_HANDOFF, [command], context, 60.0)

    with departing(tmp_path) as (held, _):
        there = ReceivingDestination(attempt=A)
        async with receiving(there), running(held, there.address, hook) as (attempt, task):
            while not mark.exists():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
            await cancelled_at_once(held, attempt, task)
    assert ended(int(mark.read_text()), 0)


async def test_while_a_frozen_machine_is_paused(tmp_path: Path) -> None:
    with departing(tmp_path) as (held, machine):
        machine.frozen_at_pause = True
        there = ReceivingDestination(attempt=A)
        async with receiving(there), running(held, there.address, terms=PATIENT) as (attempt, task):
            await machine.pausing.wait()
            await cancelled_at_once(held, attempt, task)


async def test_between_ready_and_the_release(tmp_path: Path) -> None:
    """The machine's process is asked once more, after READY: a cancel was refused from then on."""
    with departing(tmp_path) as (held, machine):
        there = ReceivingDestination(attempt=A)
        asked = asyncio.Event()

        class Confirming(SlowMachine):
            async def describe(self) -> Description:
                if "save" in self.calls and not asked.is_set():
                    asked.set()
                    await asyncio.Event().wait()
                return await super().describe()

        held.machine = held.custody.port = Confirming(machine.process)
        async with receiving(there), running(held, there.address, terms=PATIENT) as (attempt, task):
            await asked.wait()
            await cancelled_at_once(held, attempt, task)
        assert there.secrets == []


async def test_after_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    with departing(tmp_path) as (held, _):
        there = ReceivingDestination(attempt=A, handoffs=["ACTIVATING", "ACTIVATING", "ACTIVE"])
        async with receiving(there), running(held, there.address) as (attempt, task):
            await until(attempt, Phase.HANDING_OVER)
            with pytest.raises(Refused, match="handing-over: the machine is its destination's") as refusal:
                await attempt.cancelled(10)
            assert refusal.value.code == "past-return"
            await task
            assert attempt.board.progress.phase is Phase.COMPLETED
