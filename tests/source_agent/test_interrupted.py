"""A source agent whose work is interrupted: whoever asked goes away, the agent stands still, a process is frozen."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import A, leaving
from tests.source_agent.journeys import departing, running
from tests.source_agent.test_giving_way import told
from tests.source_agent.test_source_recovery import NO_CONTEXT, last, started, take_request, towards
from tests.vm_migration.handover.test_yielding import TAKEN
from vm_migration.api.v1 import types_pb2
from vm_migration.handover.custody import Change, Custody
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

DEADLINE = 20.0


async def test_a_sweep_frees_no_machine_that_came_back_after_its_journal_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.OWNER) as held:
        async with started(held, monkeypatch) as (agent, _):
            for read in (State.RETIRED, State.DESTROYED):
                await agent._restarting._sweep(msgspec.structs.replace(last(held), state=read))
            assert held.machine.process.poll() is None
            assert held.directory.path.exists()
            assert last(held).state is State.OWNER


async def test_a_task_that_is_halted_ends_also_while_a_cancel_takes_its_time(tmp_path: Path) -> None:
    """Who halts an attempt holds its machine: a task that went on to its end would wait for that one, and he for it."""
    with departing(tmp_path) as (held, _):
        begun, halted = asyncio.Event(), asyncio.Event()

        async def slow_to_end() -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                await halted.wait()

        async def driven() -> None:
            async with running(held, there.address, slow_to_end) as (attempt, task):
                await begun.wait()
                attempt.cancel()
                await asyncio.sleep(0)
                task.cancel()
                halted.set()
                async with asyncio.timeout(DEADLINE):
                    await asyncio.wait({task})
                assert task.cancelled()

        there = ReceivingDestination(attempt=A)
        async with receiving(there):
            with pytest.raises(asyncio.CancelledError):
                await driven()
        assert held.custody.record.state is State.OUTGOING


async def test_a_machine_is_taken_back_though_whoever_asked_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TAKEN was being written when the call ended: the machine was handed over as well, or stood still for ever."""
    writing, write = threading.Event(), threading.Event()
    append = Custody._append

    def slowly(self: Custody, change: Change) -> Record:
        def watched(record: Record) -> Record:
            after = change(record)
            if after.state is State.TAKEN and record.state is not State.TAKEN:
                writing.set()
                assert write.wait(DEADLINE)
            return after

        return append(self, watched)

    monkeypatch.setattr(Custody, "_append", slowly)
    with leaving(tmp_path, State.RELEASED) as held:
        async with served(FakeDestination(handoffs=["ACTIVATING"])) as there:
            await towards(held, there)
            async with started(held, monkeypatch) as (agent, service):
                call = asyncio.create_task(service.Take(take_request(), NO_CONTEXT))  # type: ignore[arg-type]  # it looks at no context
                assert await asyncio.to_thread(writing.wait, DEADLINE)
                told = len(there.secrets)
                call.cancel()
                await asyncio.wait({call})
                write.set()
                (attempt,) = agent._attempts
                async with asyncio.timeout(DEADLINE):
                    while attempt.open:
                        await attempt.board.next(DEADLINE)
                assert last(held).state is State.TAKEN
                assert held.machine.running
                assert len(there.secrets) == told


async def test_the_other_hosts_are_asked_again_where_a_frozen_process_could_not_be_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that came back looked once only, and then went on with a machine that another host has."""
    with leaving(tmp_path, State.OUTGOING) as held:
        held.machine.silent = 1
        async with (
            served(FakeDestination(report=told(TAKEN, alive=True))) as host,
            started(held, monkeypatch, {"host-c": host.address}) as (agent, service),
        ):
            async with asyncio.timeout(DEADLINE):
                while (await asyncio.to_thread(last, held)).state is State.OUTGOING:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.01)
            request = types_pb2.MachineName(machine=MACHINE)
            report = await service.Recover(request, NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
            assert report.last_state == State.RETIRED
            assert agent.complaint(MACHINE) == ""
