import asyncio
from dataclasses import replace

import pytest

from orchestrator import steering
from orchestrator.admission import Order, admit
from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.desk import LocalDesk
from orchestrator.drive import Drive
from orchestrator.result import migration_document
from orchestrator.store.store import Ownership
from orchestrator.surroundings import Surroundings
from tests.orchestrator.conftest import RecordedHooks
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import InvalidInput, Refused, Stale, Unreachable


async def started(around: Surroundings, order: Order) -> tuple[Drive, "asyncio.Task[Attempt]"]:
    drive = Drive(await admit(around, order), around)
    return drive, asyncio.create_task(drive.run())


async def test_a_machine_moves_and_its_owner_is_recorded(
    site: FakeSite, around: Surroundings, hooks: RecordedHooks
) -> None:
    uuid = site.world.add("guest", "host-a")
    seen: list[Attempt] = []
    around = replace(around, observe=seen.append)
    ended = await Drive(await admit(around, Order("guest", "host-b")), around).run()
    assert (ended.phase, ended.outcome, ended.epoch) == (Phase.COMPLETED, Outcome.COMPLETED, 2)
    assert around.store.get(ended.attempt).ended
    assert around.store.owners() == (Ownership(uuid, "guest", "host-b", 2),)
    assert hooks.ran == ["before_prepare"]
    assert [one.code for one in ended.warnings] == ["slow-link"]
    assert site.world.calls == ["Begin host-a", "Prepare host-b", "Start 127.0.0.1:1"]
    percents = [one.report.percent for one in seen if one.report is not None and one.phase == Phase.PRE_COPY]
    assert percents == sorted(percents)
    document = migration_document(ended)
    assert (document.downtime_ms, document.prepare_ms, document.pages_mismatched) == (21.0, 321.0, 0)
    assert document.expected is not None
    assert (document.expected.clock, document.expected.prepare_ms) == ("shared", 300.0)


async def test_every_blocker_of_both_sides_is_told_and_nothing_was_done(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.blockers = [types_pb2.Blocker(code="no-dirty-tracking", message="No tracker", device="qat0")]
    site.world.script.incoming_blockers = [types_pb2.Blocker(code="no-memory", message="Too little memory")]
    ended = await Drive(await admit(around, Order("guest", "host-b")), around).run()
    assert ended.outcome == Outcome.REFUSED
    assert [one.code for one in ended.blockers] == ["no-dirty-tracking", "no-memory"]
    assert ended.error is not None
    assert ended.error.code == "no-dirty-tracking"
    assert site.world.calls == []
    assert around.store.attempts() == ()


async def test_a_refused_begin_leaves_nothing_open(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.begin_error = Refused("attempt-open", "Attempt x is open", "Wait")
    ended = await Drive(await admit(around, Order("guest", "host-b")), around).run()
    assert (ended.phase, ended.outcome) == (Phase.REFUSED, Outcome.REFUSED)
    assert around.store.attempts() == ()


@pytest.mark.parametrize("broken", ["prepare", "hook"])
async def test_a_failed_prepare_is_aborted_at_the_source_and_then_discarded_on_its_proof(
    site: FakeSite, around: Surroundings, hooks: RecordedHooks, broken: str
) -> None:
    site.world.add("guest", "host-a")
    if broken == "prepare":
        site.world.script.prepare_error = Refused("no-memory", "No memory is left", "Free some")
    else:
        hooks.refusal = Refused("hook-failed", "lock-image exited 1", "See its output")
    ended = await Drive(await admit(around, Order("guest", "host-b")), around).run()
    assert (ended.phase, ended.outcome) == (Phase.ABORTED, Outcome.FAILED)
    assert ended.error is not None
    assert ended.error.code == ("no-memory" if broken == "prepare" else "hook-failed")
    assert site.world.calls[-2:] == ["Cancel", "Discard ABORTED"]
    assert hooks.ran[-1] == "after_abort"
    assert around.store.owners() == ()


async def test_a_cancel_while_preparing_does_not_wait_for_prepare(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.prepare_waits = asyncio.Event()
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    drive.request_cancel()
    ended = await task
    assert (ended.phase, ended.outcome, ended.error) == (Phase.ABORTED, Outcome.CANCELLED, None)
    assert site.world.calls[-2:] == ["Cancel", "Discard ABORTED"]


async def test_a_cancel_in_pre_copy_ends_in_cancelled(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    drive.request_cancel()
    ended = await task
    assert ended.outcome == Outcome.CANCELLED
    assert site.world.calls[-1] == "Discard ABORTED"


async def test_past_the_point_of_no_return_a_cancel_changes_nothing(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "releasing"
    reached = asyncio.Event()

    def observe(attempt: Attempt) -> None:
        if attempt.phase == Phase.RELEASING:
            reached.set()

    drive, task = await started(replace(around, observe=observe), Order("guest", "host-b"))
    await reached.wait()
    assert drive.past_return
    drive.request_cancel()
    site.world.script.go.set()
    assert (await task).outcome == Outcome.COMPLETED


@pytest.mark.parametrize(("how", "phase"), [("failed", Phase.ABORTED), ("lost", Phase.LOST)])
async def test_the_source_says_how_it_ended(site: FakeSite, around: Surroundings, how: str, phase: Phase) -> None:
    site.world.add("guest", "host-a")
    site.world.script.ends_with = how
    ended = await Drive(await admit(around, Order("guest", "host-b")), around).run()
    assert (ended.phase, ended.outcome) == (phase, Outcome(how))
    assert ended.error is not None
    assert site.world.calls[-1] == f"Discard {'LOST' if how == 'lost' else 'ABORTED'}"


async def test_a_silent_source_leaves_it_unresolved_and_open(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    _, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    await site.stop("host-a")
    ended = await task
    assert (ended.outcome, ended.ended) == (Outcome.UNRESOLVED, False)
    row = around.store.get(ended.attempt)
    assert (row.driver, row.outcome) == ("", Outcome.UNRESOLVED)


async def test_a_silent_source_does_not_hide_that_the_destination_runs(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "handing-over"
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    site.world.incoming[drive.attempt.attempt] = "ACTIVE"
    await site.stop("host-a")
    ended = await task
    assert ended.outcome == Outcome.COMPLETED
    assert around.store.owners()[0].host == "host-b"


async def test_another_driver_goes_on_with_the_next_term(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    task.cancel()
    await asyncio.wait({task})
    taken = around.store.claim(drive.attempt.attempt, "cli-test-2", around.clock() + 60)
    second = Drive(taken, replace(around, driver="cli-test-2"))
    site.world.script.go.set()
    ended = await second.run()
    assert (ended.outcome, ended.term) == (Outcome.COMPLETED, 2)
    assert site.world.terms[ended.attempt] == 2
    with pytest.raises(Stale):
        around.store.save(drive.attempt, around.clock())


async def test_an_attempt_whose_driver_died_while_preparing_is_settled_by_the_next_order(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.prepare_waits = asyncio.Event()
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    task.cancel()
    await asyncio.wait({task})
    site.world.script.prepare_waits = None
    with pytest.raises(Refused, match="is open"):
        await admit(replace(around, driver="cli-test-2"), Order("guest", "host-b"))
    later = replace(around, driver="cli-test-2", clock=lambda: around.clock() + 60)
    ended = await Drive(await admit(later, Order("guest", "host-b")), later).run()
    assert ended.outcome == Outcome.COMPLETED
    first = around.store.get(drive.attempt.attempt)
    assert (first.outcome, first.error and first.error.code) == (Outcome.FAILED, "driver-gone")


async def test_an_attempt_whose_driver_died_while_beginning_is_cancelled_by_the_next_order(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    drive = Drive(await admit(around, Order("guest", "host-b")), around)
    around.store.save(drive.attempt.to(Phase.BEGINNING), around.clock())
    later = replace(around, driver="cli-test-2", clock=lambda: around.clock() + 60)
    ended = await Drive(await admit(later, Order("guest", "host-b")), later).run()
    first = around.store.get(drive.attempt.attempt)
    assert (first.outcome, ended.outcome) == (Outcome.CANCELLED, Outcome.COMPLETED)
    assert site.world.calls.count("Prepare host-b") == 1


async def _left(site: FakeSite, around: Surroundings) -> Attempt:
    """Return an attempt whose driver died in pre-copy, and which its source ended and forgot since."""
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    task.cancel()
    await asyncio.wait({task})
    forgotten = site.world.attempts.pop(drive.attempt.attempt)
    assert forgotten.task is not None
    forgotten.task.cancel()
    site.world.outgoing[drive.attempt.attempt] = source_pb2.OutgoingReport(
        state="ABORTED", highest_epoch=2, record='{"machine": "m", "state": "ABORTED", "reason": "the agent restarted"}'
    )
    site.world.machines[drive.attempt.machine].epoch = 2
    site.world.script.hold_at = ""
    return drive.attempt


async def test_what_its_source_has_forgotten_does_not_keep_the_machine_from_moving(
    site: FakeSite, around: Surroundings
) -> None:
    left = await _left(site, around)
    later = replace(around, driver="cli-test-2", clock=lambda: around.clock() + 60)
    ended = await Drive(await admit(later, Order("guest", "host-b")), later).run()
    assert ended.outcome == Outcome.COMPLETED
    first = around.store.get(left.attempt)
    assert (first.outcome, first.error and first.error.message) == (Outcome.FAILED, "the agent restarted")
    assert site.world.incoming[left.attempt] == "DISCARDED"


async def test_what_its_source_has_forgotten_is_shown_and_cancelled_by_its_journal(
    site: FakeSite, around: Surroundings
) -> None:
    left = await _left(site, around)
    later = replace(around, driver="cli-test-2", clock=lambda: around.clock() + 60)
    shown = await LocalDesk(later, "").attempt(left.attempt)
    assert shown.outcome == Outcome.FAILED
    assert not around.store.get(left.attempt).ended
    cancelled = await steering.cancel(later, around.store.get(left.attempt))
    assert cancelled.outcome == Outcome.CANCELLED
    assert around.store.get(left.attempt).ended


async def test_an_attempt_that_goes_on_without_its_driver_is_left_alone_by_the_next_order(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "begun"
    drive, task = await started(around, Order("guest", "host-b"))
    await site.world.script.reached.wait()
    task.cancel()
    await asyncio.wait({task})
    assert around.store.get(drive.attempt.attempt).phase in {Phase.PREPARING, Phase.BEGUN}
    site.world.script.hold_at = "pre-copy"
    site.world.script.reached.clear()
    go, site.world.script.go = site.world.script.go, asyncio.Event()
    go.set()
    await site.world.script.reached.wait()
    later = replace(around, driver="cli-test-2", clock=lambda: around.clock() + 60)
    with pytest.raises(Refused, match="is open"):
        await admit(later, Order("guest", "host-b"))
    assert "Cancel" not in site.world.calls


async def test_orders_that_cannot_be_entered(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    for order in (Order("nobody", "host-b"), Order("guest", "host-z")):
        with pytest.raises(InvalidInput):
            await admit(around, order)
    same = await Drive(await admit(around, Order("guest", "host-a")), around).run()
    assert same.error is not None
    assert same.error.code == "same-host"
    site.world.add("guest", "host-b")
    with pytest.raises(Refused, match=r"host-a.*host-b"):
        await admit(around, Order("guest", "host-b"))
    await site.stop("host-b")
    with pytest.raises(Unreachable, match="host-b"):
        await admit(around, Order("nobody", "host-b"))


async def test_any_takes_the_first_host_that_passes(site: FakeSite, around: Surroundings) -> None:
    site.world.add("guest", "host-a")
    attempt = await admit(around, Order("guest", "any"))
    assert attempt.destination == "host-b"
