"""The agent, the old process or the new one ends at every step of an update: never both run, never neither.

Before the release the old process goes on as if nothing had been; from then on the new one does, as long as it lives.
"""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from source_agent.agent import SourceAgent
from source_agent.updating import course
from source_agent.updating.attempt import UpdateAttempt
from tests.fakes.fake_machine import MACHINE
from tests.source_agent.updating.life import Killed, Life
from tests.source_agent.updating.lives import (
    PATIENCE,
    a_host,
    agent_of,
    last,
    life_that_ends,
    living,
    next_life,
    running,
    settled,
    steps_of_an_update,
    updated,
)
from tests.source_agent.updating.twin import (
    TwinHost,
)
from vm_migration.errors import Refused
from vm_migration.handover.states import OWNING, State
from vm_migration.handover.succession import went_over


async def test_a_machine_goes_on_in_a_new_process() -> None:
    host = a_host()
    async with living(host, Life()) as agent:
        attempt = await updated(agent)
        progress = attempt.board.progress
        assert (progress.phase.value, progress.outcome.value, progress.failure) == ("completed", "completed", None)
        assert progress.downtime is not None
    record = await settled(host)
    assert record.state is State.RECLAIMED
    assert record.owned_epoch == record.epoch + 1
    assert running(host) == [host.new]


async def test_a_machine_that_is_paused_stays_paused_in_the_new_process() -> None:
    host = a_host(running=False)
    for _ in range(2):
        async with living(host, Life()) as agent:
            assert went_over((await updated(agent)).record)
        await settled(host)
        assert running(host) == []


async def test_a_machine_is_updated_again_and_again() -> None:
    host = a_host()
    async with living(host, Life()) as agent:
        for _ in range(5):
            assert went_over((await updated(agent)).record)
    await settled(host)
    assert running(host) == [host.new]


@pytest.mark.parametrize("was_running", [True, False])
async def test_the_agent_may_end_at_every_step(was_running: bool) -> None:
    steps = await steps_of_an_update(running=was_running)
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host, life = a_host(running=was_running), Life(at, after)
            await life_that_ends(host, life)
            released = any(step == "write RELEASED" for step in life.steps[: at if after else at - 1])
            record = await settled(host)
            assert (len(running(host)) == 1) == was_running, (at, steps[at - 1])
            assert went_over(record) == (released and record.state is State.RECLAIMED), (at, steps[at - 1], record)


@pytest.mark.parametrize("whose", ["old", "new"])
@pytest.mark.parametrize("agent_too", [False, True])
async def test_a_process_may_end_at_every_step(whose: str, agent_too: bool) -> None:
    """Where the one that has the machine ends, it is gone, as it would be at any time; nothing of it is left then."""
    steps = await steps_of_an_update()
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host = a_host()
            life = Life(at, after)
            life.happens = _ends(host, life, whose, agent_too=agent_too)
            await life_that_ends(host, life)
            record = await next_life(host)
            assert not host.violations, (at, steps[at - 1], host.violations)
            if record.attempt is None or (went_over(record) and record.run_confirmed):
                continue  # it had not begun, or was over: a machine's process may die at any time
            assert len(running(host)) == (record.state in OWNING), (at, steps[at - 1], record)
            if record.state in OWNING:
                assert running(host)[0].instance.name == record.instance == host.listed
            else:
                assert record.state is State.LOST
                assert not any(each.alive for each in host.processes.values()), (at, steps[at - 1])
            if whose == "new" and record.state is State.LOST:  # it had the machine, and nobody else did any more
                assert went_over_before(life)


def went_over_before(life: Life) -> bool:
    return "write RECLAIMED" in life.steps


def _ends(host: TwinHost, life: Life, whose: str, *, agent_too: bool) -> Callable[[], None]:
    def happens() -> None:
        process = host.old if whose == "old" else host.new
        if process is not None:
            process.end()
        if agent_too:
            life.end()
            raise Killed

    return happens


@pytest.mark.parametrize("agent_too", [False, True])
async def test_an_old_process_that_freezes_once_the_new_one_has_everything_is_ended(agent_too: bool) -> None:
    """Neither would run otherwise, for as long as it is frozen."""
    steps = await steps_of_an_update()
    first = "keep" if agent_too else "write STOPPED"  # until it is kept the new one ends with the agent
    for at in range(steps.index(first) + 1, len(steps) + 1):
        host = a_host()
        life = Life(at, after=True)
        life.happens = _freezes(host, life, agent_too=agent_too)
        await life_that_ends(host, life)
        record = await settled(host)
        assert went_over(record), (at, steps[at - 1], record)
        assert running(host) == [host.new]
        assert not host.old.alive


def _freezes(host: TwinHost, life: Life, *, agent_too: bool) -> Callable[[], None]:
    def happens() -> None:
        host.old.frozen = True
        if agent_too:
            life.end()
            raise Killed

    return happens


async def test_a_machine_that_was_updated_and_destroyed_is_no_attempt_of_a_later_life() -> None:
    host = a_host()
    async with living(host, Life()) as agent:
        assert went_over((await updated(agent)).record)
        await agent.machines.destroy(MACHINE)
    async with living(host, Life()) as agent:
        assert not list(agent._attempts)
    assert last(host).state is State.DESTROYED


async def test_an_agent_that_was_frozen_at_any_step_has_no_say_any_more() -> None:
    """It comes back when another one has gone on, and does the step that it was at."""
    steps = await steps_of_an_update()
    for at in range(steps.index("write OUTGOING") + 2, len(steps) + 1):
        host, life = a_host(), Life(at, freezes=True)
        agent = agent_of(host, life)
        await agent.recover()
        work, over = asyncio.create_task(updated(agent)), asyncio.create_task(life.ended.wait())
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        record = await next_life(host)  # its pipes are open still: nothing ends with it
        assert len(running(host)) == 1, (at, steps[at - 1], record)
        driving = list(agent._attempts._driving.values())
        life.thaw.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*driving)
        work.cancel()  # it may have no say any more: then nobody tells it how it ended
        await agent.stop()
        host.agent_gone()
        await settled(host)
        over.cancel()


async def test_a_new_process_that_refuses_leaves_the_machine_where_it_is() -> None:
    host = a_host()
    host.refuses = "StateDocument is of a format that this version does not read; it reads 1"
    async with living(host, Life()) as agent:
        attempt = await updated(agent)
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("not-taken-over", State.ABORTED)
        assert "does not read" in failure.message
    await settled(host)
    assert running(host) == [host.old]


async def test_a_new_process_that_falls_silent_leaves_the_machine_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "_STANDSTILL_SECONDS", 0.05)
    host = a_host()
    host.silent = True
    async with living(host, Life()) as agent:
        attempt = await updated(agent)
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("not-taken-over", State.ABORTED)
    await settled(host)
    assert running(host) == [host.old]


async def test_an_update_that_is_cancelled_leaves_the_machine_where_it_is() -> None:
    steps = await steps_of_an_update()
    for at in range(steps.index("write OUTGOING") + 2, len(steps) + 1):
        host, life = a_host(), Life(at)
        cancelled: list[UpdateAttempt] = []

        async with living(host, life) as agent:

            def cancel(agent: SourceAgent = agent, cancelled: list[UpdateAttempt] = cancelled) -> None:
                for each in agent._attempts:
                    assert isinstance(each, UpdateAttempt)
                    cancelled.append(each)
                    with contextlib.suppress(Refused):
                        each.cancel()

            life.happens = lambda cancel=cancel, life=life: life.loop.call_soon_threadsafe(cancel)
            attempt = await updated(agent)
            early = at <= steps.index("write RELEASED")
            assert cancelled == [attempt]
            assert (attempt.board.progress.outcome.value == "cancelled") == early, (at, steps[at - 1])
            assert running(host) == [host.old if early else host.new]
        await settled(host)


@pytest.mark.parametrize("was_running", [True, False])
async def test_a_process_becomes_another_program_and_the_agent_may_end_at_every_step(was_running: bool) -> None:
    steps = await steps_of_an_update("exec", running=was_running)
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host, life = a_host(running=was_running), Life(at, after)
            await life_that_ends(host, life, "exec")
            record = await settled(host)
            assert running(host) == [host.old] * was_running, (at, steps[at - 1])
            assert not went_over(record) or host.old.program == ("new",), (at, steps[at - 1])
    host = a_host(running=was_running)
    async with living(host, Life()) as agent:
        for mode in ("exec", "transfer", "exec"):
            attempt = await updated(agent, mode)
            assert attempt.board.progress.outcome.value == "completed"
            assert (attempt.board.progress.downtime is not None) == was_running
    await settled(host)


async def test_a_program_that_could_not_go_on_from_the_state_takes_nobody_s_place() -> None:
    host = a_host()
    host.refuses_state = "A part of the machine's state was refused"
    async with living(host, Life()) as agent:
        attempt = await updated(agent, "exec")
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("successor-not-prepared", State.ABORTED)
    await settled(host)
    assert (running(host), host.old.program, host.old.pause) == ([host.old], ("old",), 0)


async def test_a_program_that_cannot_have_the_machine_leaves_the_one_that_has_it() -> None:
    host = a_host()
    host.refuses = "Documents are of a format that this version does not read"
    async with living(host, Life()) as agent:
        attempt = await updated(agent, "exec")
        failure = attempt.board.progress.failure
        assert failure is not None
        assert (failure.code, attempt.record.state) == ("not-replaced", State.ABORTED)
    await settled(host)
    assert running(host) == [host.old]
    assert host.old.program == ("old",)
