"""A machine is left in files and started anew, and agent, processes or host end at every step (mode reboot).

Before the release the process that had it has it again; from then on whoever comes next starts it from its files, and
two never have it. That its processes end meanwhile is in test_ends_while_it_waits.
"""

import asyncio
import contextlib

import pytest

from source_agent import restarting
from source_agent.agent import SourceAgent
from source_agent.giving_way import GivingWay
from source_agent.updating.attempt import UpdateAttempt
from tests.fakes.fake_machine import MACHINE
from tests.source_agent.updating.life import Killed, Life
from tests.source_agent.updating.lives import (
    PATIENCE,
    a_host,
    agent_of,
    begun_update,
    last,
    life_that_ends,
    living,
    next_life,
    running,
    settled,
    steps_of_an_update,
    updated,
)
from tests.source_agent.updating.twin import TwinHost, TwinPort
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover.states import State
from vm_migration.handover.succession import went_over
from vm_migration.machine.errors import MachineError
from vmm.guest.console import GuestAction

NOTHING_USABLE = "nothing there can be used"
LEFT = "write STOPPED"
"""From here on it is journalled that the machine waits in files."""


async def test_a_machine_goes_on_from_its_files() -> None:
    host = a_host()
    async with living(host, Life()) as agent:
        attempt = await updated(agent, "reboot")
        progress = attempt.board.progress
        assert (progress.phase.value, progress.outcome.value, progress.failure) == ("completed", "completed", None)
        assert progress.downtime is not None
    record = await settled(host)
    assert (record.state, record.owned_epoch) == (State.RECLAIMED, record.epoch + 1)
    assert running(host) == [host.new]
    assert host.waits is None


async def test_a_machine_that_is_paused_stays_paused_and_waits_no_more() -> None:
    host = a_host(running=False)
    async with living(host, Life()) as agent:
        assert went_over((await updated(agent, "reboot")).record)
    await settled(host)
    assert (running(host), host.waits) == ([], None)


async def test_a_machine_is_updated_again_in_every_mode() -> None:
    host = a_host()
    async with living(host, Life()) as agent:
        for mode in ("reboot", "transfer", "reboot", "exec", "reboot", "reboot"):
            attempt = await updated(agent, mode)
            assert went_over(attempt.record), (mode, attempt.board.progress)
    await settled(host)
    assert running(host) == [host.new]


@pytest.mark.parametrize("was_running", [True, False])
async def test_the_agent_may_end_at_every_step(was_running: bool) -> None:
    steps = await steps_of_an_update("reboot", running=was_running)
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host, life = a_host(running=was_running), Life(at, after)
            host.old.asleep = True
            await life_that_ends(host, life, "reboot")
            released = "write RELEASED" in life.steps[: at if after else at - 1]
            record = await settled(host)
            assert (len(running(host)) == 1) == was_running, (at, steps[at - 1])
            assert (host.waits, went_over(record)) == (None, released), (at, steps[at - 1], record)
            sleeps_on = record.attempt is None  # its update was never begun; afterwards it wakes wherever it runs
            assert [each.asleep for each in running(host)] == [sleeps_on] * was_running, (at, steps[at - 1], record)


async def test_a_guest_that_was_suspended_wakes_where_it_could_not_be_left_whenever_the_agent_ends() -> None:
    first = (await steps_of_an_update("reboot")).index("leave") + 2
    for at in range(first, first + 40):
        host, life = a_host(), Life(at)
        host.refuses, host.old.asleep = "No space left on device", True
        await life_that_ends(host, life, "reboot")
        record = await settled(host)
        assert (record.state, running(host), host.old.asleep) == (State.ABORTED, [host.old], False), (at, life.steps)
        if len(life.steps) < at:
            break
    assert at > first + 1


async def test_a_guest_whose_console_refuses_does_not_keep_its_machine_from_another_attempt() -> None:
    host = a_host()
    host.refuses, host.console_refuses = "No space left on device", "32 actions of a device are not finished"
    async with living(host, Life()) as agent:
        record = (await updated(agent, "reboot")).record
        assert (record.state, record.run_confirmed, running(host)) == (State.ABORTED, True, [host.old])
        host.refuses = ""
        assert went_over((await updated(agent, "reboot")).record)
    await settled(host)


async def test_a_guest_that_has_not_woken_yet_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host, real = a_host(), TwinPort.stop_tracking
    host.refuses, host.drivers_hang, host.old.asleep = "No space left on device", True, True
    failures = ["The process takes its time"] * 2

    async def stop_tracking(port: TwinPort) -> None:
        if failures:
            raise MachineError(failures.pop())
        await real(port)

    monkeypatch.setattr(TwinPort, "stop_tracking", stop_tracking)
    async with living(host, Life()) as agent:
        record = (await updated(agent, "reboot")).record
    assert (record.run_confirmed, failures, host.old.typed) == (True, [], [GuestAction.WAKE])


def _require_one_or_lost(host: TwinHost, steps: list[str], at: int, *, after: bool) -> None:
    """The machine runs, unless what it was in ended with its memory: before it was left, or once it had run again."""
    taken = steps[: at if after else at - 1]
    waited = LEFT in taken and "run" not in taken
    if waited:
        assert len(running(host)) == 1, (at, steps[at - 1], last(host))
    assert len([each for each in host.processes.values() if each.alive]) <= 1, (at, steps[at - 1])


async def test_the_host_may_restart_at_every_step() -> None:
    """Its run directory is gone then, and RAM's file system stays."""
    steps = await steps_of_an_update("reboot")
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host = a_host()
            life = Life(at, after)
            await life_that_ends(host, life, "reboot")
            host.restart()
            record = await next_life(host)
            assert not host.violations, (at, steps[at - 1], host.violations)
            _require_one_or_lost(host, steps, at, after=after)
            if running(host):
                await settled(host)
            elif record.attempt is not None:
                assert record.state in {State.LOST, State.RECLAIMED}, (at, steps[at - 1], record)


async def test_an_agent_that_was_frozen_at_any_step_has_no_say_any_more() -> None:
    steps = await steps_of_an_update("reboot")
    for at in range(steps.index("write OUTGOING") + 2, len(steps) + 1):
        host, life = a_host(), Life(at, freezes=True)
        agent = agent_of(host, life)
        await agent.recover()
        work, over = asyncio.create_task(updated(agent, "reboot")), asyncio.create_task(life.ended.wait())
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        record = await next_life(host)
        assert len(running(host)) == 1, (at, steps[at - 1], record)
        driving = list(agent._attempts._driving.values())
        life.thaw.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*driving)
        work.cancel()
        await agent.stop()
        host.agent_gone()
        await settled(host)
        over.cancel()


@pytest.mark.parametrize("agent_too", [False, True])
async def test_an_old_process_that_freezes_once_the_machine_waits_is_ended(agent_too: bool) -> None:
    steps = await steps_of_an_update("reboot")
    for at in range(steps.index(LEFT) + 1, steps.index("wake") + 1):
        host = a_host()
        life = Life(at, after=True)

        def freezes(host: TwinHost = host, life: Life = life) -> None:
            host.old.frozen = True
            if agent_too:
                life.end()
                raise Killed

        life.happens = freezes
        await life_that_ends(host, life, "reboot")
        record = await settled(host)
        assert went_over(record), (at, steps[at - 1], record)
        assert running(host) == [host.new]
        assert not host.old.alive


async def test_a_cancel_before_the_release_leaves_the_machine_where_it_is() -> None:
    steps = await steps_of_an_update("reboot")
    for at in range(steps.index("write OUTGOING") + 2, len(steps) + 1):
        host, life = a_host(), Life(at)

        async with living(host, life) as agent:

            def cancel(agent: SourceAgent = agent) -> None:
                for each in agent._attempts:
                    assert isinstance(each, UpdateAttempt)
                    with contextlib.suppress(Refused):
                        each.cancel()

            life.happens = lambda cancel=cancel, life=life: life.loop.call_soon_threadsafe(cancel)
            attempt = await updated(agent, "reboot")
            early = at <= steps.index("write RELEASED")
            assert (attempt.board.progress.outcome.value == "cancelled") == early, (at, steps[at - 1])
            assert running(host) == [host.old if early else host.new]
        await settled(host)


async def test_a_machine_that_cannot_be_left_goes_on() -> None:
    host = a_host()
    host.refuses = "No space left on device"
    async with living(host, Life()) as agent:
        attempt = await updated(agent, "reboot")
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("not-left", State.ABORTED)
    await settled(host)
    assert running(host) == [host.old]


async def test_what_this_version_would_not_begin_from_is_never_released() -> None:
    host = a_host()
    host.unreadable = True
    async with living(host, Life()) as agent:
        attempt = await updated(agent, "reboot")
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("not-left", State.ABORTED)
    await settled(host)
    assert (running(host), host.waits) == ([host.old], None)


async def test_a_machine_whose_new_processes_do_not_come_up_waits_until_they_do() -> None:
    host = a_host()
    host.refuses_to_wake = True
    async with living(host, Life()) as agent:
        attempt = await begun_update(agent, "reboot")
        async with asyncio.timeout(PATIENCE):
            while "No suspended machine" not in attempt.board.progress.reason:
                await attempt.board.next(1.0)
            assert (last(host).state, running(host)) == (State.RELEASED, [])
            host.refuses_to_wake = False
            attempt.hurry()
            while attempt.open:
                await attempt.board.next(1.0)
        assert went_over(attempt.record)
    await settled(host)
    assert running(host) == [host.new]


async def restarted_after(written: str) -> TwinHost:
    """Return a host that ended as a record of its update had been written, and was started again."""
    host, life = a_host(), Life()
    steps = await steps_of_an_update("reboot")
    life.at, life.after = steps.index(f"write {written}") + 1, True
    await life_that_ends(host, life, "reboot")
    host.restart()
    return host


@pytest.mark.parametrize("written", ["STOPPED", "RELEASED", "RECLAIMED"])
async def test_what_cannot_be_used_is_left_to_a_life_that_can(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version does so, say, or one that started before the file system was mounted."""
    monkeypatch.setattr(restarting, "_PATIENCE", 0.1)
    host = await restarted_after(written)
    host.unreadable = True
    async with living(host, Life()) as agent:
        for attempt in agent._attempts:
            async with asyncio.timeout(PATIENCE):
                while NOTHING_USABLE not in attempt.board.progress.reason:
                    await attempt.board.next(1.0)
        told = [agent.complaint(MACHINE), *(each.board.progress.reason for each in agent._attempts)]
        assert any(NOTHING_USABLE in each for each in told)
        assert (last(host).state.value, running(host)) == (written, [])
        assert host.waits is not None
    host.unreadable = False
    await settled(host)
    assert running(host) == [host.new]


@pytest.mark.parametrize("written", ["STOPPED", "RELEASED", "RECLAIMED"])
async def test_only_an_operator_can_say_that_a_file_system_is_gone(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarting, "_PATIENCE", 0.1)
    host = await restarted_after(written)
    host.unmounted = True
    async with living(host, Life()) as agent:
        with monkeypatch.context() as patched:
            patched.setattr(restarting, "_HURRY_PATIENCE", 0.1)
            await agent.recovered(MACHINE)
        assert (last(host).state.value, running(host)) == (written, [])
        await agent.recovered(MACHINE, "anna at noon")
        assert (last(host).state, running(host)) == (State.LOST, [])


async def test_a_word_that_could_not_be_acted_on_is_told_to_whoever_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again later is tried without it."""
    host = await restarted_after("RECLAIMED")
    host.unmounted = True

    async def unmet(*_: object, **__: object) -> frozenset[str]:
        return frozenset({MACHINE})

    monkeypatch.setattr(restarting, "_PATIENCE", 0.1)
    async with living(host, Life()) as agent:
        with monkeypatch.context() as patched:
            patched.setattr(GivingWay, "look", unmet)
            with pytest.raises(Unreachable, match="nothing was done on that word"):
                await agent.recovered(MACHINE, "anna at noon")
            assert (last(host).state, host.believed) == (State.RECLAIMED, 0)
        await agent.recovered(MACHINE, "anna at noon")
        assert last(host).state is State.LOST


async def test_a_word_that_files_are_gone_takes_nothing_from_a_machine_whose_files_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarting, "_PATIENCE", 0.1)
    monkeypatch.setattr(restarting, "_HURRY_PATIENCE", 0.1)
    host = await restarted_after("RECLAIMED")
    host.unreadable = True
    async with living(host, Life()) as agent:
        await agent.recovered(MACHINE, "anna at noon")
        assert (last(host).state, running(host)) == (State.RECLAIMED, [])
    host.unreadable = False
    await settled(host)
    assert running(host) == [host.new]
