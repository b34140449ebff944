"""An incoming QEMU that is told to run: by its owner, twice, behind an answer that never came, or by somebody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.spoken_qmp import speaking
from tests.vm_migration.machine.qemu.waiting_qemu import WaitingQemu, commands_of
from vm_migration.machine.errors import MachineGone
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.fence_file import FenceFile, Kept
from vm_migration.machine.qemu.monitor import Monitor
from vmm.process import control
from vmm.process.control import AnyReply
from vmm.process.controllers import Controller

SECONDS = 10.0
EPOCH = 5


@asynccontextmanager
async def shim(folder: Path, kept: Kept, *, again: bool = False) -> AsyncIterator[QemuCommands]:
    """Yield what a process beside the QEMU at this folder's socket answers with."""
    monitor = Monitor(folder / "qmp", pause=kept.pause, seen_before=again)
    try:
        await monitor.require_connection()
        yield commands_of(folder, monitor, kept)
    finally:
        await monitor.close()


@asynccontextmanager
async def at_its_socket(folder: Path, qemu: WaitingQemu) -> AsyncIterator[None]:
    async with speaking(folder / "qmp", qemu.say) as qemu.spoken:
        yield


@asynccontextmanager
async def guarded(commands: QemuCommands) -> AsyncIterator["asyncio.Queue[str]"]:
    """Yield what the guard tells."""
    told: asyncio.Queue[str] = asyncio.Queue()
    guard = asyncio.create_task(commands.guard(told.put_nowait))
    try:
        yield told
    finally:
        guard.cancel()
        with suppress(asyncio.CancelledError):
            await guard


async def asked(commands: QemuCommands, request: control.AnyRequest) -> AnyReply:
    """Ask as an agent does that has just come: attached at the epoch that the machine comes to."""
    controller = Controller()
    await commands.serve(controller, control.Attach(epoch=EPOCH, controller=1))
    reply, _ = await commands.serve(controller, request)
    return reply


async def run_state(commands: QemuCommands) -> str:
    reply = await asked(commands, control.Describe())
    assert isinstance(reply, control.Description)
    return reply.run_state


async def strayed(commands: QemuCommands) -> int:
    reply = await asked(commands, control.Describe())
    assert isinstance(reply, control.Description)
    return reply.strayed


async def test_a_guest_whose_cont_was_obeyed_and_not_answered_is_run_again_as_if_it_stood(tmp_path: Path) -> None:
    qemu = WaitingQemu(breaks_behind_cont=True)
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        with pytest.raises(MachineGone):
            await asked(commands, control.Run(epoch=EPOCH))
        assert qemu.runs
        assert await run_state(commands) == "running", "ACTIVE is written on its own word"
        assert isinstance(await asked(commands, control.Run(epoch=EPOCH)), control.Running)
        await asked(commands, control.Pause(for_attempt=False))
        assert await run_state(commands) == "paused", "it is an ordinary machine from here on"


async def test_a_guest_that_runs_behind_a_shim_that_died_at_its_cont_is_run_by_the_next_one(tmp_path: Path) -> None:
    qemu = WaitingQemu(breaks_behind_cont=True)
    async with at_its_socket(tmp_path, qemu):
        async with shim(tmp_path, Kept.waiting()) as first:
            with pytest.raises(MachineGone):
                await asked(first, control.Run(epoch=EPOCH))
        kept = FenceFile(tmp_path).read()
        assert kept is not None
        assert (kept.incoming, kept.granted) == (True, EPOCH)
        async with shim(tmp_path, kept, again=True) as second, guarded(second) as told:
            assert isinstance(await asked(second, control.Run(epoch=EPOCH)), control.Running)
            assert qemu.runs
            assert told.empty()
        settled = FenceFile(tmp_path).read()
        assert settled is not None
        assert not settled.incoming


async def test_a_guest_that_runs_without_having_been_told_to_at_that_epoch_is_not_taken_for_whole(
    tmp_path: Path,
) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        qemu.goes(on=True)
        reply = await asked(commands, control.Run(epoch=EPOCH))
        assert isinstance(reply, control.Refusal)
        assert "whole state" in reply.reason


async def test_a_guest_whose_stream_did_not_complete_is_not_run_again(tmp_path: Path) -> None:
    qemu = WaitingQemu(breaks_behind_cont=True)
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        with pytest.raises(MachineGone):
            await asked(commands, control.Run(epoch=EPOCH))
        qemu.stream = "failed"
        assert isinstance(await asked(commands, control.Run(epoch=EPOCH)), control.Refusal)


async def test_a_waiting_guest_that_somebody_else_sets_going_is_seen_to_run_and_stopped(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        assert await run_state(commands) == "incoming"
        qemu.goes(on=True)
        assert await run_state(commands) == "running"
        async with guarded(commands) as told, asyncio.timeout(SECONDS):
            assert "before it was told to" in await told.get()
        assert not qemu.runs
        assert await run_state(commands) == "incoming"
        kept = FenceFile(tmp_path).read()
        assert kept is not None
        assert kept.strayed == await strayed(commands) == 1, "whoever looks is told, after this shim, too"
        async with shim(tmp_path, kept, again=True) as second:
            assert await strayed(second) == 1
            assert isinstance(await asked(second, control.Run(epoch=EPOCH)), control.Running)
            assert await strayed(second) == 0, "it is an ordinary machine"


async def test_a_guard_without_a_connection_makes_one_and_finds_who_runs(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu):
        monitor = Monitor(tmp_path / "qmp")
        commands = commands_of(tmp_path, monitor, Kept.waiting())
        qemu.runs = True  # since before anybody listened
        async with guarded(commands) as told, asyncio.timeout(SECONDS):
            assert "before it was told to" in await told.get()
        assert not qemu.runs
        await monitor.close()


async def test_a_stop_that_qemu_refuses_is_told_and_the_guard_goes_on(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        qemu.refuses_stop = True
        qemu.goes(on=True)
        async with guarded(commands) as told, asyncio.timeout(SECONDS):
            assert "was not stopped: QEMU refuses stop: not now" in await told.get()
            qemu.refuses_stop = False
            qemu.goes(on=True)
            assert "it was stopped again" in await told.get()
        assert not qemu.runs


async def test_a_waiting_guest_that_runs_is_paused_by_whoever_commands_it(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands:
        assert isinstance(await asked(commands, control.Pause(for_attempt=False)), control.Refusal)
        qemu.goes(on=True)
        reply = await asked(commands, control.Pause(for_attempt=False))
        assert isinstance(reply, control.Paused)
        assert reply.was_running
        assert not qemu.runs


async def test_a_machine_that_was_made_here_is_not_stopped_when_it_boots(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept()) as commands, guarded(commands) as told:
        await commands.boot()
        assert await run_state(commands) == "running"
        assert qemu.runs
        assert told.empty()


async def test_a_machine_that_came_paused_is_its_owners_to_set_going(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept.waiting()) as commands, guarded(commands) as told:
        await asked(commands, control.StayPaused(epoch=EPOCH))
        qemu.goes(on=True)
        assert await run_state(commands) == "running"
        await commands.idle()
        assert (told.empty(), qemu.runs, await strayed(commands)) == (True, True, 0)
    kept = FenceFile(tmp_path).read()
    assert kept is not None
    assert (kept.incoming, kept.granted) == (False, EPOCH)


async def test_a_machine_that_was_given_away_and_reclaimed_paused_is_its_owners_again(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    qemu.stream = "none"
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept()) as commands, guarded(commands) as told:
        await asked(commands, control.Release(epoch=EPOCH))
        await asked(commands, control.StayPaused(epoch=EPOCH + 1))
        qemu.goes(on=True)
        assert await run_state(commands) == "running"
        await commands.idle()
        assert (told.empty(), qemu.runs, await strayed(commands)) == (True, True, 0)


@pytest.mark.parametrize("kept", [Kept.waiting(), Kept(epoch=EPOCH, released=EPOCH)], ids=["waiting", "released"])
async def test_a_guest_that_ran_and_stands_again_before_anybody_looked_ran_all_the_same(
    tmp_path: Path, kept: Kept
) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, kept) as commands:
        async with guarded(commands) as told, asyncio.timeout(SECONDS):
            qemu.goes(on=True)
            qemu.goes(on=False)
            assert "it stands still again" in await told.get()
        assert qemu.spoken is not None
        assert "stop" not in qemu.spoken.asked
        left = FenceFile(tmp_path).read()
        assert left is not None
        assert left.strayed == await strayed(commands) == 1


async def test_a_machine_that_runs_pauses_and_is_given_away_at_once_did_not_stray(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with at_its_socket(tmp_path, qemu), shim(tmp_path, Kept()) as commands, guarded(commands) as told:
        for epoch in range(EPOCH, EPOCH + 5):
            controller = Controller()
            await commands.serve(controller, control.Attach(epoch=epoch, controller=1))
            await commands.serve(controller, control.Run(epoch=epoch))
            await commands.serve(controller, control.Pause(for_attempt=True))
            await commands.serve(controller, control.Release(epoch=epoch))
        assert (told.empty(), await strayed(commands)) == (True, 0)


async def test_an_image_whose_guest_ran_before_it_was_ready_is_not_ready(tmp_path: Path) -> None:
    qemu = WaitingQemu()
    async with (
        at_its_socket(tmp_path, qemu),
        shim(tmp_path, Kept.waiting()) as commands,
        guarded(commands) as told,
        asyncio.timeout(SECONDS),
    ):
        qemu.goes(on=True)
        await told.get()
        reply = await asked(commands, control.Load(state=b"", pause=3))
        assert isinstance(reply, control.Refusal)
        assert "ran 1 time before it was told to" in reply.reason
        assert isinstance(await asked(commands, control.Run(epoch=EPOCH)), control.Running)
        assert "had run 1 time" in await told.get(), "what is counted no more was said"
