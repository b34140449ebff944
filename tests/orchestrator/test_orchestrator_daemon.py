"""The daemon's queue and API over sockets, asked by the desk that the command line uses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest

from orchestrator import service, watched
from orchestrator.admission import Order, admit
from orchestrator.api import NAME, OrchestratorService
from orchestrator.attempt import Asked, Attempt, Outcome, Phase
from orchestrator.client import PEER, RemoteDesk
from orchestrator.doors import Doors
from orchestrator.drive import Drive
from orchestrator.driving import driving
from orchestrator.leading import Leading
from orchestrator.learning import Listing
from orchestrator.policy import MigrationPolicy
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.api.v1 import orchestrator_pb2 as api_pb2
from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from vm_migration.errors import InvalidInput, Refused, Stale
from vm_migration.link.channel import open_channel
from vm_migration.link.server import AgentServer, Service

ATTEMPT = "5f0e8d0a-1111-4222-8333-444455556666"


@contextlib.asynccontextmanager
async def daemon(around: Surroundings) -> AsyncIterator[RemoteDesk]:
    async with driving(replace(around, driver="orchestrator")) as at_work:
        register = partial(add_OrchestratorServicer_to_server, OrchestratorService(Leading(at_work), around.store))
        async with AgentServer("127.0.0.1:0", None, [Service(NAME, register)], grace=0.0) as server:
            channel = open_channel(server.address, None, PEER)
            yield RemoteDesk(Doors([server.address], lambda _: channel))
            await channel.close()


@pytest.fixture
async def desk(around: Surroundings) -> AsyncIterator[RemoteDesk]:
    async with daemon(around) as running:
        yield running


async def _at(desk: RemoteDesk, attempt: Attempt, phase: Phase) -> Attempt:
    async with contextlib.aclosing(desk.watch(attempt)) as changes:
        async for change in changes:
            if change.phase == phase:
                return change
    raise AssertionError(f"{attempt.attempt} never was in {phase}")


async def test_what_is_submitted_is_driven_and_watched(site: FakeSite, desk: RemoteDesk) -> None:
    site.world.add("guest", "host-a")
    seen: list[Attempt] = []
    ended = await desk.migrate(Order("guest", "host-b"), seen.append)
    assert (ended.outcome, ended.driver) == (Outcome.COMPLETED, "orchestrator")
    assert ended.report is not None
    assert ended.report.downtime.downtime_ms == 21
    assert seen[-1] == ended
    events = await desk.events(ended)
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    assert await desk.attempts(everything=False) == Listing((), {})
    assert (await desk.attempt(ended.attempt[:6])).attempt == ended.attempt


async def test_what_an_order_says_beside_its_policy_reaches_who_drives(
    site: FakeSite, desk: RemoteDesk, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.features = site.world.script.features_prepared = ["direct"]
    hosts = around.agents.hosts
    hosts["host-b"] = replace(hosts["host-b"], transport="direct")
    asked = Asked(measure_ms=200, by_host=True)
    ended = await desk.migrate(Order("guest", "host-b", asked=asked), lambda _: None)
    assert (ended.outcome, ended.policy.transport) == (Outcome.COMPLETED, "direct")
    assert around.store.get(ended.attempt).asked == asked
    assert site.world.measured_ms == [0, 200]  # at the desk nobody waits for it
    with pytest.raises(InvalidInput, match="99 ms"):
        await desk.submit(Order("guest", "host-a", asked=Asked(measure_ms=99)))


async def test_an_order_of_an_older_command_is_measured_for_a_second_over_its_transport(
    site: FakeSite, around: Surroundings
) -> None:
    machine = site.world.add("guest", "host-a")
    hosts = around.agents.hosts
    hosts["host-b"] = replace(hosts["host-b"], transport="direct")
    async with driving(replace(around, driver="orchestrator")) as at_work:
        policy = MigrationPolicy().message()  # which names grpc, as its default
        order = api_pb2.SubmitMigrationRequest(attempt=ATTEMPT, machine=machine, destination="host-b", policy=policy)
        await OrchestratorService(Leading(at_work), around.store).SubmitMigration(order, None)
    row = around.store.get(ATTEMPT)
    assert (row.asked, row.policy.transport) == (Asked(measure_ms=1000), "grpc")


async def test_asking_twice_is_asking_once(site: FakeSite, desk: RemoteDesk) -> None:
    site.world.add("guest", "host-a")
    order = Order("guest", "host-b")
    site.world.script.hold_at = "pre-copy"
    first, second = await desk.submit(order), await desk.submit(order)
    assert first.attempt == second.attempt
    await site.world.script.reached.wait()
    with pytest.raises(Refused) as refusal:
        await desk.submit(Order("guest", "host-b"))
    assert refusal.value.code == "attempt-open"
    site.world.script.go.set()
    await _at(desk, first, Phase.COMPLETED)
    assert site.world.calls.count("Begin host-a") == 1


async def test_what_cannot_move_is_refused_at_once(site: FakeSite, desk: RemoteDesk) -> None:
    site.world.add("guest", "host-a")
    site.world.script.incoming_blockers = [types_pb2.Blocker(code="no-memory", message="Too little")]
    refused = await desk.submit(Order("guest", "host-b"))
    assert (refused.outcome, [one.code for one in refused.blockers]) == (Outcome.REFUSED, ["no-memory"])
    with pytest.raises(InvalidInput):
        await desk.submit(Order("nobody", "host-b"))
    assert site.world.calls == []


async def test_a_host_sends_one_machine_at_a_time_and_a_waiting_one_can_be_cancelled(
    site: FakeSite, desk: RemoteDesk
) -> None:
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    first = await desk.submit(Order("one", "host-b"))
    await site.world.script.reached.wait()
    second, third = await desk.submit(Order("two", "host-b")), await desk.submit(Order("three", "host-b"))
    assert {one.phase for one in (second, third)} == {Phase.QUEUED}
    await desk.cancel(third)
    assert (await _at(desk, third, Phase.ABORTED)).outcome == Outcome.CANCELLED
    assert site.world.calls.count("Begin host-a") == 1
    site.world.script.go.set()
    for attempt in (first, second):
        await _at(desk, attempt, Phase.COMPLETED)


async def test_a_running_attempt_is_cancelled(site: FakeSite, desk: RemoteDesk) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    attempt = await desk.submit(Order("guest", "host-b"))
    await site.world.script.reached.wait()
    await desk.cancel(await _at(desk, attempt, Phase.PRE_COPY))
    assert (await _at(desk, attempt, Phase.ABORTED)).outcome == Outcome.CANCELLED


async def test_a_running_attempt_is_tuned_and_forced(site: FakeSite, desk: RemoteDesk) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    attempt = await desk.submit(Order("guest", "host-b"))
    await site.world.script.reached.wait()
    running = await _at(desk, attempt, Phase.PRE_COPY)
    await desk.tune(running, downtime_limit_ms=400, max_bandwidth_bytes_per_s=0)
    with pytest.raises(InvalidInput, match="No limit"):
        await desk.tune(running, downtime_limit_ms=0, max_bandwidth_bytes_per_s=0)
    await desk.force(running)
    await _at(desk, attempt, Phase.COMPLETED)
    assert site.world.calls[-2:] == ["Tune 400 0", "Force"]
    with pytest.raises(Refused, match="has ended"):
        await desk.force(running)


async def test_a_daemon_takes_over_what_another_driver_left(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    drive = Drive(await admit(around, Order("guest", "host-b")), around)
    task = asyncio.create_task(drive.run())
    await site.world.script.reached.wait()
    task.cancel()
    await asyncio.wait({task})
    async with daemon(replace(around, clock=lambda: around.clock() + 60)) as desk:
        site.world.script.go.set()
        ended = await _at(desk, drive.attempt, Phase.COMPLETED)
    assert (ended.term, ended.driver) == (2, "orchestrator")
    assert site.world.terms[ended.attempt] == 2
    with pytest.raises(Stale):
        await around.agents.cancel("host-a", drive.attempt.key())


async def test_a_daemon_that_stops_lets_go_and_the_next_one_goes_on(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    async with daemon(around) as desk:
        attempt = await desk.submit(Order("guest", "host-b"))
        await _at(desk, attempt, Phase.PRE_COPY)
    assert around.store.get(attempt.attempt).driver == ""
    async with daemon(around) as desk:
        site.world.script.go.set()
        ended = await _at(desk, attempt, Phase.COMPLETED)
    assert ended.term == 2


async def test_an_attempt_whose_daemon_went_away_is_not_told_as_refused(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "PATIENCE_SECONDS", 0.3)
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    seen: list[Attempt] = []
    async with contextlib.AsyncExitStack() as stack:
        at_work = await stack.enter_async_context(driving(replace(around, driver="orchestrator")))
        register = partial(add_OrchestratorServicer_to_server, OrchestratorService(Leading(at_work), around.store))
        server = AgentServer("127.0.0.1:0", None, [Service(NAME, register)], grace=0.0)
        async with server:
            channel = open_channel(server.address, None, PEER)
            stack.push_async_callback(channel.close)
            asked = RemoteDesk(Doors([server.address], lambda _: channel)).migrate(
                Order("guest", "host-b"), seen.append
            )
            task = asyncio.create_task(asked)
            await site.world.script.reached.wait()
        left = await task
    assert left.outcome == Outcome.UNRESOLVED
    assert left.error is not None
    assert (left.error.code, left.attempt in left.error.hint) == ("orchestrator-silent", True)
    assert any(one.reason.startswith("asks again") for one in seen)


async def test_what_was_left_unresolved_is_asked_about_until_its_agents_answer(
    site: FakeSite, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ASK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(service, "ASK_AGAIN_PATIENCE", 0.2)
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 0.05)
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    async with daemon(replace(around, patience=0.2)) as desk:
        attempt = await desk.submit(Order("guest", "host-b"))
        await _at(desk, attempt, Phase.PRE_COPY)
        await site.stop("host-a")
        while (row := around.store.get(attempt.attempt)).term < 3:  # asked in vain, and again
            assert row.outcome in {None, Outcome.UNRESOLVED}
            await asyncio.sleep(0.02)
        site.world.incoming[attempt.attempt] = "ACTIVE"
        ended = await _at(desk, attempt, Phase.COMPLETED)
    assert (ended.outcome, ended.error) == (Outcome.COMPLETED, None)
    assert around.store.owners()[0].host == "host-b"


async def test_a_waiting_attempt_says_what_it_waits_for(site: FakeSite, desk: RemoteDesk) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    await desk.submit(Order("one", "host-b"))
    await site.world.script.reached.wait()
    waiting = await desk.submit(Order("two", "host-b"))
    async with contextlib.aclosing(desk.watch(waiting)) as changes:
        async for change in changes:
            assert change.phase == Phase.QUEUED
            if change.reason:
                assert "host-a sends another machine and host-b takes another machine in" in change.reason
                break
    site.world.script.go.set()
    await _at(desk, waiting, Phase.COMPLETED)


async def test_the_queue_has_a_bound(site: FakeSite, desk: RemoteDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "QUEUE_LIMIT", 1)
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "pre-copy"
    await desk.submit(Order("one", "host-b"))
    await site.world.script.reached.wait()
    waiting = await desk.submit(Order("two", "host-b"))
    with pytest.raises(Refused, match="1 attempts are waiting") as refusal:
        await desk.submit(Order("three", "host-b"))
    assert refusal.value.code == "queue-full"
    site.world.script.go.set()
    await _at(desk, waiting, Phase.COMPLETED)
    await desk.submit(Order("three", "host-b"))
