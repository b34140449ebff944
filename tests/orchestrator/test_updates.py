"""`viaduct update` as somebody types it, with a daemon and without, and updates whose driver goes away."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.admission import Order, admit
from orchestrator.attempt import Asked, Attempt, Outcome, Phase
from orchestrator.desk import CANCELLING, LocalDesk, follow
from orchestrator.journals import end_in_journals
from orchestrator.learning import learn
from orchestrator.service import AttemptQueue
from orchestrator.status import StoreOutbox
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership
from orchestrator.surroundings import Surroundings, ignore
from orchestrator.updating.drive import drive_of
from orchestrator.updating.fleet import update_all
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.fake_world import UPDATE_WAY
from tests.orchestrator.test_evacuation_commands import driven, log
from tests.orchestrator.test_viaduct_command import Json, Run, Said, config, store, viaduct
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.daemon.status_topics import Topics
from vm_migration.errors import InternalError, InvalidInput, Unreachable
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State

__all__ = ["config", "driven", "log", "store", "viaduct"]  # fixtures
UPDATE = Asked(update="transfer")


def one(said: Said) -> Json:
    found = said.document["update"]
    assert isinstance(found, dict)
    return found


def several(said: Said) -> list[Json]:
    found = said.document["updates"]
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, dict)]


async def test_a_machine_is_updated_and_the_attempt_is_told_of(viaduct: Run, site: FakeSite, driven: str) -> None:
    site.world.add("guest", "host-a")
    dry = await viaduct("update", "guest", "--dry-run", "--json")
    assert (dry.exit_code, one(dry)["outcome"], one(dry)["blockers"]) == (0, None, [])
    assert "BeginUpdate host-a" not in site.world.calls
    said = await viaduct("update", "guest", "--json")
    update = one(said)
    assert (said.exit_code, update["outcome"], update["downtime_ms"], update["mode"]) == (0, "completed", 9, "transfer")
    assert update["downtime"] == {"handing_over_ms": 5, "ready_ms": 1, "release_ms": 1, "resume_ms": 2}
    attempt = str(update["attempt"])
    shown = (await viaduct("show", attempt[:8], "--events", "--json")).document
    events = shown["events"]
    assert isinstance(events, list)
    phases = [each["phase"] for each in events if isinstance(each, dict)]
    assert phases[-1] == "completed"
    assert [each for each in phases if each in UPDATE_WAY] == [each for each in UPDATE_WAY if each in phases]
    assert not {"preparing", "pre-copy", "handing-over"} & set(phases)
    assert "on host-a" in (await viaduct("list", "--all")).out
    assert "stood still" not in (await viaduct("show", attempt)).err
    watched = await viaduct("watch", attempt)
    assert (watched.exit_code, "downtime" in watched.out) == (0, True)
    assert not [call for call in site.world.calls if call.startswith(("Prepare", "Discard"))]
    assert driven in {"alone", "daemon"}


async def test_the_owner_that_is_told_of_stands_at_the_epoch_that_its_host_says(
    viaduct: Run, site: FakeSite, driven: str, store: Path
) -> None:
    del driven
    machine = site.world.add("guest", "host-a")
    assert (await viaduct("update", "guest")).exit_code == 0
    with SqliteStore(store) as opened:
        assert opened.owners() == (Ownership(machine, "guest", "host-a", site.world.machines[machine].epoch),)


async def test_blockers_are_told_at_once_and_nothing_is_done(viaduct: Run, site: FakeSite, driven: str) -> None:
    del driven
    site.world.add("guest", "host-a")
    site.world.script.blockers = [
        types_pb2.Blocker(code="mediated-device", message="Mediated device on type1", device="mdev0"),
        types_pb2.Blocker(code="attempt-open", message="Attempt 7 is open"),
    ]
    dry = await viaduct("update", "guest", "--dry-run")
    assert dry.exit_code == 3
    assert "mediated-device (mdev0)" in dry.out
    assert "attempt-open" in dry.out
    (await viaduct("update", "guest")).complains(3, "Update of guest", "Mediated device on type1; Attempt 7 is open")
    assert "BeginUpdate host-a" not in site.world.calls


async def test_an_update_that_fails_says_that_the_machine_runs(viaduct: Run, site: FakeSite, driven: str) -> None:
    del driven
    site.world.add("guest", "host-a")
    site.world.script.ends_with = "failed"
    said = await viaduct("update", "guest")
    said.complains(4, "Update of guest on host-a failed")
    assert not [call for call in site.world.calls if call.startswith("Discard")]


async def test_what_is_to_be_updated_must_be_clear(viaduct: Run) -> None:
    for words in (
        (),
        ("guest", "--host", "host-a"),
        ("--host", "host-a"),
        ("--all",),
        ("guest", "--all"),
        ("guest", "--skip-blocked"),
    ):
        (await viaduct("update", *words)).complains(2, "not clear")
    (await viaduct("update", "--host", "host-x", "--all")).complains(2, "host-x")
    (await viaduct("update", "guest")).complains(2, "guest")


async def test_all_machines_of_a_host_are_updated(viaduct: Run, site: FakeSite, driven: str) -> None:
    del driven
    for name in ("three", "one", "two"):
        site.world.add(name, "host-a")
    site.world.add("elsewhere", "host-b")
    said = await viaduct("update", "--host", "host-a", "--all", "--parallel", "2", "--json")
    assert (said.exit_code, said.document["outcome"], said.document["left"]) == (0, "completed", [])
    assert sorted(str(each["name"]) for each in several(said)) == ["one", "three", "two"]
    assert "3 of 3: " in said.err
    judged = await viaduct("update", "--host", "host-a", "--all", "--dry-run", "--json")
    assert (judged.exit_code, judged.document["outcome"], len(several(judged))) == (0, None, 3)


async def test_nothing_is_begun_where_something_speaks_against_one_machine_unless_it_is_left_out(
    viaduct: Run, site: FakeSite, driven: str
) -> None:
    del driven
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.blocked = "two"
    site.world.script.blockers = [
        types_pb2.Blocker(code="mediated-device", message="Mediated device on type1", device="mdev0"),
        types_pb2.Blocker(code="dirty-tracking", message="Dirty pages are tracked"),
    ]
    said = await viaduct("update", "--host", "host-a", "--all", "--json")
    assert (said.exit_code, said.document["outcome"], said.document["left"]) == (3, "refused", ["one", "three"])
    (held,) = several(said)
    assert (held["name"], held["outcome"], held["epoch"]) == ("two", "refused", 0)
    assert "BeginUpdate host-a" not in site.world.calls
    told = await viaduct("update", "--host", "host-a", "--all")
    told.complains(3, "Nothing was begun on host-a: 1 of its machines cannot be updated now (two)")
    assert "--skip-blocked" in told.err
    assert "Mediated device on type1; Dirty pages are tracked" in " ".join(told.out.split())
    skipped = await viaduct("update", "--host", "host-a", "--all", "--skip-blocked", "--json")
    outcomes = {str(each["name"]): each["outcome"] for each in several(skipped)}
    assert outcomes == {"one": "completed", "two": "refused", "three": "completed"}
    assert (skipped.exit_code, skipped.document["left"]) == (3, [])
    assert "2 of 2: " in skipped.err
    assert site.world.calls.count("BeginUpdate host-a") == 2
    judged = await viaduct("update", "--host", "host-a", "--all", "--dry-run", "--json")
    assert (judged.exit_code, judged.document["outcome"], judged.document["left"]) == (3, None, [])


async def test_a_machine_that_goes_away_before_it_is_asked_about_is_told_and_the_others_are_updated(
    viaduct: Run, site: FakeSite, driven: str
) -> None:
    del driven
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.blocked = "two"
    site.world.script.check_error = InvalidInput("unknown-machine", "No machine two on host-a", "See the list")
    said = await viaduct("update", "--host", "host-a", "--all", "--json")
    assert (said.exit_code, said.document["left"]) == (3, ["one", "three"])
    (held,) = several(said)
    assert (held["name"], held["outcome"]) == ("two", "refused")
    assert held["blockers"] == [{"code": "unknown-machine", "message": "No machine two on host-a", "device": ""}]
    assert "BeginUpdate host-a" not in site.world.calls
    skipped = await viaduct("update", "--host", "host-a", "--all", "--skip-blocked", "--json")
    outcomes = {str(each["name"]): each["outcome"] for each in several(skipped)}
    assert outcomes == {"one": "completed", "two": "refused", "three": "completed"}
    (await viaduct("update", "two", "--dry-run")).complains(2, "No machine two")


async def test_at_the_first_that_fails_no_more_are_begun(viaduct: Run, site: FakeSite, driven: str) -> None:
    del driven
    for name in ("one", "two", "three"):
        site.world.add(name, "host-a")
    site.world.script.ends_with = "failed"
    said = await viaduct("update", "--host", "host-a", "--all")
    assert said.exit_code == 4
    assert "0 of 3 machines updated" in said.out
    assert said.out.count("not begun") == 2
    assert "error: Update of one on host-a failed" in said.err
    assert site.world.calls.count("BeginUpdate host-a") == 1


async def test_what_runs_beside_the_first_that_fails_goes_on_to_its_end() -> None:
    begun: list[str] = []
    beside, failed = asyncio.Event(), asyncio.Event()

    async def update(machine: str) -> Attempt:
        begun.append(machine)
        if machine == "a":
            await beside.wait()
            failed.set()
        else:
            beside.set()
            await failed.wait()
        outcome = Outcome.FAILED if machine == "a" else Outcome.COMPLETED
        return replace(an_update(machine), outcome=outcome)

    found = await update_all(("a", "b", "c"), 2, update)
    assert (begun, found.left, found.exit_code) == (["a", "b"], ("c",), 4)
    assert [each.name for each in found.ended] == ["a", "b"]


async def test_a_fault_of_our_own_ends_all_of_it() -> None:
    async def update(machine: str) -> Attempt:
        raise InternalError("broken", machine)

    with pytest.raises(InternalError):
        await update_all(("a", "b"), 1, update)


def an_update(name: str) -> Attempt:
    order = Order(name, "host-a", asked=UPDATE)
    return Attempt(order.attempt, name, name, "host-a", "host-a", order.policy, 0.0, 0.0, asked=UPDATE)


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, *map(Phase, UPDATE_WAY)])
async def test_an_update_whose_driver_was_killed_goes_on_in_the_next_term(
    site: FakeSite, around: Surroundings, phase: Phase
) -> None:
    around = replace(around, driver="orchestrator")
    site.world.add("guest", "host-a")
    site.world.script.hold_at = phase.value
    reached = asyncio.Event()

    def observe(attempt: Attempt) -> None:
        if attempt.phase == phase:
            reached.set()

    drive = drive_of(await admit(around, Order("guest", "", asked=UPDATE)), replace(around, observe=observe))
    if phase != Phase.QUEUED:
        task = asyncio.create_task(drive.run())
        await reached.wait()
        task.cancel()
        await asyncio.wait({task})
    row = around.store.get(drive.attempt.attempt)
    assert row.asked == UPDATE
    async with AttemptQueue(around, sole=True) as queue:
        site.world.script.go.set()
        async with asyncio.timeout(20):
            last = await follow(queue.watch(row.attempt), ignore) or row
    assert (last.outcome, last.term) == (Outcome.COMPLETED, 2), last
    assert site.world.calls.count("Cancel") == 0
    (owner,) = around.store.owners()
    assert (owner.host, owner.machine) == ("host-a", last.machine)


async def test_all_that_a_command_updates_at_once_is_cancelled_at_once(site: FakeSite, around: Surroundings) -> None:
    for name in ("one", "two"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "switching"
    switching: set[str] = set()
    both = asyncio.Event()

    def observe(attempt: Attempt) -> None:
        if attempt.phase is Phase.SWITCHING:
            switching.add(attempt.name)
            if len(switching) == 2:
                both.set()

    desk = LocalDesk(around, "viaduct orchestrator")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        updates = [group.create_task(desk.migrate(Order(name, "", asked=UPDATE), observe)) for name in ("one", "two")]
        await both.wait()
        assert await desk.interrupt() == CANCELLING
    assert [task.result().outcome for task in updates] == [Outcome.CANCELLED] * 2


async def test_updates_take_no_slot_of_a_host(site: FakeSite, around: Surroundings) -> None:
    for name in ("moves", "first", "second"):
        site.world.add(name, "host-a")
    site.world.script.hold_at = "begun"
    async with AttemptQueue(around) as queue:
        rows = [await queue.submit(Order("moves", "host-b"))]
        rows += [await queue.submit(Order(name, "", asked=UPDATE)) for name in ("first", "second")]
        async with asyncio.timeout(20):
            while not {row.attempt for row in rows} <= site.world.attempts.keys():
                await queue.changed(queue.version, 1.0)
            site.world.script.go.set()
            for row in rows:
                ended = await follow(queue.watch(row.attempt), ignore)
                assert ended is not None
                assert ended.outcome is Outcome.COMPLETED


async def test_every_phase_of_an_update_leaves_for_the_broker(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    ended = await drive_of(await admit(around, Order("guest", "", asked=UPDATE)), around).run()
    assert ended.outcome is Outcome.COMPLETED
    outbox = StoreOutbox(around.store, around.driver, Topics("home"), around.clock)
    left = [one.publication for one in outbox.pending(100)]
    events = [json.loads(one.payload) for one in left if one.topic.endswith("/event")]
    phases = [one["phase"] for one in events]
    assert phases[:4] == ["queued", "preflight", "beginning", "begun"]
    assert phases[-1] == "completed"
    assert phases == [each for each in ("queued", "preflight", "beginning", *UPDATE_WAY, "completed") if each in phases]
    (owner,) = [json.loads(one.payload) for one in left if one.topic.endswith("/owner")]
    assert (owner["machine"], owner["host"]) == ("guest", "host-a")


def a_record(attempt: Attempt, *, over: bool) -> Record:
    """What the host's journal says of an update that its agent does not remember."""
    return Record(
        machine=attempt.machine,
        state=State.RECLAIMED,
        highest_epoch=3,
        owned_epoch=3,
        released_epoch=2,
        attempt=attempt.attempt,
        epoch=2,
        peer="host-a",
        instance="new" if over else "old",
        policy='{"update":{"mode":"transfer","predecessor":"old","successor":"new"}}',
    )


@pytest.mark.parametrize("over", [True, False])
async def test_the_journal_tells_how_an_update_ended_that_nobody_remembers(
    site: FakeSite, around: Surroundings, over: bool
) -> None:
    attempt = replace(an_update("guest"), epoch=2)
    record = encode(a_record(attempt, over=over)).decode()
    site.world.outgoing[attempt.attempt] = source_pb2.OutgoingReport(state="RECLAIMED", highest_epoch=3, record=record)
    found = await end_in_journals(around.agents, attempt, Unreachable("unknown-attempt", "Nobody remembers"))
    assert found is not None
    assert found.attempt.outcome == (Outcome.COMPLETED if over else Outcome.FAILED)
    assert found.proof is None
    learned = await learn(around.agents, 0.0)
    assert learned.attempts == ()
