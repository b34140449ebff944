"""What schedules have found in the agents' code, each as the one thing that goes wrong."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from orchestrator.attempt import Outcome
from tests.simulation.drivers import Orchestrator, order
from tests.simulation.endings import settled
from tests.simulation.faults import Fault, Kind, drawn
from tests.simulation.hosts import Host
from tests.simulation.schedule import run as run_plan
from tests.simulation.world import SIDES, World, captured_logs
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

ATTEMPT = "5f0e8d0a-1111-4222-8333-444455556666"
NEXT = "6f0e8d0a-1111-4222-8333-444455556666"
Strike = Callable[[World, Host], None]


@contextmanager
def site() -> Iterator[World]:
    world = World(1, witness=True)
    try:
        with captured_logs(world):
            yield world
    finally:
        world.close()


def at(world: World, state: State, strike: Strike) -> None:
    """Strike once, when a host's journal has come to a state."""

    def stepped(host: Host, record: Record) -> None:
        if record.state is state:
            world.stepped = lambda _host, _record: None
            world.loop.at_step(world.loop.steps, partial(strike, world, host))

    world.stepped = stepped


async def moved(world: World, state: State, strike: Strike, check: Callable[[Orchestrator], Awaitable[None]]) -> None:
    """Order one migration with a fault in it, let the site settle, and look."""
    await world.boot()
    orchestrator = world.add_orchestrator("orchestrator-1")
    orchestrator.start()
    assert await world.until(lambda: orchestrator.ready, 10)
    at(world, state, strike)
    orchestrator.migrate(order(world.machine, "host-b", ATTEMPT))
    assert await world.until(lambda: orchestrator.store.attempts(everything=True) != (), 20)
    assert await world.until(lambda: settled(world), 200, every=1.0), [str(line) for line in world.trace[-20:]]
    await check(orchestrator)


def run(state: State, strike: Strike) -> None:
    with site() as world:

        async def check(orchestrator: Orchestrator) -> None:
            (row,) = orchestrator.store.attempts(everything=True)
            expected = "host-b" if row.outcome is Outcome.COMPLETED else "host-a"
            assert [each.host.name for each in world.running()] == [expected]

        world.loop.run_until_complete(moved(world, state, strike, check))


def fail(steps: int, world: World, host: Host) -> None:
    """The next changes of a host's disk fail."""
    del world
    for step in range(host.disk.steps + 1, host.disk.steps + 1 + steps):
        host.disk.failures[step] = errno.EIO


def restart(world: World, _host: Host) -> None:
    """The source agent is killed, and started again soon."""
    source = world.hosts["host-a"]
    source.kill("source")
    world.loop.call_later(1.0, source.restore, "source")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 8])
def test_an_arrival_whose_end_cannot_be_written_is_ended_later(steps: int) -> None:
    """It was open for ever, and every later attempt to that host was refused."""
    run(State.PREPARED, partial(fail, steps))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_an_owner_whose_disk_fails_as_it_is_told_of_the_retirement_hears_it_later(steps: int) -> None:
    """It was told once, and began no attempt any more."""
    run(State.RETIRED, lambda world, _host: fail(steps, world, world.hosts["host-b"]))


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED, State.RELEASED, State.ACTIVATING, State.ACTIVE])
def test_an_end_that_a_restarted_source_agent_reports_is_heard(state: State) -> None:
    """Its reports counted from nought again, and were taken for old ones.

    A source agent that came back after its destination had become ACTIVE took that for a higher claim than its own.
    """
    run(state, restart)


def test_a_host_that_returns_and_meets_an_operators_recovery_retires_its_copy() -> None:
    """It stayed STOPPED for ever, and the machine waited for its former source."""

    def power(world: World, _host: Host) -> None:
        off = world.hosts["host-a"]
        off.lose_power(lambda _sector: True)
        world.loop.call_later(5.0, world.operator.fence, off.name)
        for side in SIDES:
            world.loop.call_later(30.0, off.restore, side)

    with site() as world:

        async def check(_orchestrator: Orchestrator) -> None:
            assert await world.until(lambda: world.records["host-a"].state is State.RETIRED, 60)
            assert [each.host.name for each in world.running()] == ["host-b"]

        world.loop.run_until_complete(moved(world, State.READY, power, check))


@pytest.mark.parametrize("step", [1, 2, 3], ids=["reserve", "write", "flush"])
def test_an_attempt_whose_begin_nobody_heard_of_is_ended(step: int) -> None:
    """Its OUTGOING stood in the journal, no attempt was in hand, and every later one was refused."""
    with site() as world:

        async def scenario() -> None:
            await world.boot()
            orchestrator = world.add_orchestrator("orchestrator-1")
            orchestrator.start()
            assert await world.until(lambda: orchestrator.ready, 10)
            host = world.hosts["host-a"]

            def fail_at_begin(_source: str, _target: str, what: str) -> None:
                if what.endswith("Source/Begin"):
                    world.network.passed = world.invariants.passed
                    host.disk.failures[host.disk.steps + step] = errno.EIO

            world.network.passed = fail_at_begin
            orchestrator.migrate(order(world.machine, "host-b", ATTEMPT))
            assert await world.until(lambda: orchestrator.store.attempts(everything=True) != (), 20)
            await asyncio.sleep(1.0)  # until then only the attempt itself is ended
            assert await world.until(lambda: settled(world), 100, every=1.0), [str(one) for one in world.trace[-20:]]
            orchestrator.migrate(order(world.machine, "host-c", NEXT))
            moved_on = await world.until(lambda: [one.host.name for one in world.running()] == ["host-c"], 60)
            assert moved_on, [str(one) for one in world.trace[-30:]]

        world.loop.run_until_complete(scenario())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_nothing_is_given_up_for_a_record_that_was_never_flushed(steps: int) -> None:
    """The source that returned retired before a TAKEN that could be read and was not durable."""

    def power(world: World, _host: Host) -> None:
        off, there = world.hosts["host-a"], world.hosts["host-b"]
        off.lose_power(lambda _sector: True)
        world.loop.call_later(5.0, world.operator.fence, off.name)
        world.loop.call_later(8.0, fail, steps, world, there)  # the source has not answered until then
        for side in SIDES:
            world.loop.call_later(30.0, off.restore, side)

    with site() as world:

        async def check(_orchestrator: Orchestrator) -> None:
            assert [each.host.name for each in world.running()] == ["host-b"]
            assert world.invariants.violation is None

        world.loop.run_until_complete(moved(world, State.READY, power, check))


def test_a_discard_whose_asker_is_killed_leaves_the_journal_to_others() -> None:
    """Its lock was kept for ever, and the secret's hand-over was refused with it."""
    faults = (
        Fault(Kind.KILL_MACHINE_DEST, State.RELEASED, 0, 1.0),
        Fault(Kind.KILL_SOURCE_AGENT, State.LOST, 2, 0.25),
    )
    assert not run_plan(replace(drawn(677), faults=faults)).failure


def test_a_discard_that_was_not_flushed_is_made_durable_and_frees() -> None:
    """Who looked after the arrival took what could be read for done, and looked no more."""
    plan = drawn(1375)
    kept = tuple(each for each in plan.faults if each.kind in (Kind.FSYNC_DEST, Kind.POWER_SOURCE))
    assert not run_plan(replace(plan, faults=kept)).failure


def test_a_freeing_whose_asker_has_given_up_leaves_no_folder() -> None:
    """The process was ended, and then nobody was there any more to remove its place."""
    faults = (
        Fault(Kind.REPLACE_SOURCE_AGENT, State.OUTGOING, 0, 0.23),
        Fault(Kind.FREEZE_DEST_AGENT, State.DISCARDED, 4, 9.66),
    )
    assert not run_plan(replace(drawn(72), faults=faults)).failure


def test_an_owner_whose_active_was_not_flushed_hears_of_the_retirement() -> None:
    """Its peers were told ACTIVE, which was made durable for them, and it went by the record before."""
    plan = drawn(3777)
    kept = tuple(each for each in plan.faults if each.kind is Kind.WRITE_DEST)
    assert not run_plan(replace(plan, faults=kept)).failure


def test_an_image_whose_loss_was_written_and_not_followed_is_swept() -> None:
    """Whoever had asked for it had given up between the two, and its folder stayed."""
    kept = tuple(each for each in drawn(6226).faults if each.at in (State.LOST, State.READY))
    assert not run_plan(replace(drawn(6226), faults=kept)).failure
