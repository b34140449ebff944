"""One attempt at its source: cancels at awkward moments, and attempts of an earlier life."""

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from source_agent.getting_ready import GettingReady
from source_agent.outgoing_attempt import OutgoingAttempt, StartOrder, Surroundings
from source_agent.progress import Outcome, Phase
from source_agent.terms import Terms, decode
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE, Held
from tests.source_agent.departures import SECRET, TERMS, A, B, leaving
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import begin
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import State
from vmm.process.identity import boot_id


async def nothing() -> None:
    pass


def attempt_of(machine: Held, terms: Terms = TERMS) -> OutgoingAttempt:
    return OutgoingAttempt(machine.custody, terms, Surroundings(None, nothing, 1e9, boot_id()))


def towards(destination: FakeDestination) -> Terms:
    return msgspec.structs.replace(TERMS, control_address=destination.address, bulk_address=destination.address)


async def test_a_cancel_before_the_first_step_counts(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        attempt = attempt_of(machine)
        attempt.cancel()
        await attempt.run()
        shown = attempt.board.progress
        assert (shown.phase, shown.outcome) == (Phase.ABORTED, Outcome.CANCELLED)
        assert machine.custody.record.state is State.ABORTED
        attempt.cancel()


async def test_a_cancel_between_the_last_step_and_the_release_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        attempt = attempt_of(machine)

        async def made_ready(_self: GettingReady, _stack: object) -> None:
            asyncio.get_running_loop().call_soon(attempt.cancel)  # runs once this task is done, before its waiter

        monkeypatch.setattr(GettingReady, "run", made_ready)
        await attempt.run()
        assert machine.custody.record.state is State.ABORTED
        assert attempt.board.progress.outcome is Outcome.CANCELLED
        assert "release 2" not in machine.machine.calls


async def test_a_destination_that_nobody_reaches_aborts(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        attempt = attempt_of(machine)
        attempt.start(StartOrder("127.0.0.1:1", "127.0.0.1:1", b"ticket"))
        await attempt.run()
        assert (attempt.board.progress.outcome, attempt.open) == (Outcome.FAILED, False)
        assert machine.custody.record.state is State.ABORTED
        assert decode(machine.custody.record.policy).control_address == "127.0.0.1:1"
        assert machine.machine.running


async def test_an_attempt_that_is_never_started_ends(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        attempt = attempt_of(machine, msgspec.structs.replace(TERMS, timeout_ms=1))
        await attempt.run()
        failure = attempt.board.progress.failure
        assert failure is not None
        assert failure.code == "timeout"
        assert machine.custody.record.state is State.ABORTED


async def test_the_end_of_the_agent_writes_nothing_past_what_stands(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        attempt = attempt_of(machine)
        task = asyncio.create_task(attempt.run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not machine.custody.record.closed  # the next start ends it
        again = attempt_of(machine)
        await again.recover()
        assert again.board.progress.outcome is Outcome.FAILED
        assert machine.custody.record.state is State.ABORTED


async def test_a_released_attempt_is_handed_over_again_and_fenced_again(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        async with served(FakeDestination(handoffs=["ACTIVE"])) as destination:
            attempt = attempt_of(machine, towards(destination))
            await attempt.recover()
            assert destination.secrets == [SECRET]
            assert attempt.board.progress.phase is Phase.COMPLETED
            assert machine.custody.record.state is State.RETIRED
            assert machine.machine.calls == ["release 2", "destroy"]
            with pytest.raises(Refused):
                attempt.cancel()
            assert destination.retired == 1  # before it is shown as completed: the next attempt may begin at once
            await attempt.tell()
            assert destination.retired == 1
            assert machine.custody.record.policy == ""  # nothing is left to be told


async def test_a_new_owner_that_did_not_hear_at_once_is_told_later(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        silences: list[str | Exception] = [Unreachable("silent", "Not now"), Unreachable("silent", "Not now"), "ACTIVE"]
        async with served(FakeDestination(handoffs=["ACTIVE"], notes=silences)) as destination:
            attempt = attempt_of(machine, towards(destination))
            await attempt.recover()
            assert attempt.board.progress.phase is Phase.COMPLETED
            await attempt.tell()
            assert destination.retired == 3


async def test_a_destination_that_lost_its_image_gives_the_machine_back(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        async with served(FakeDestination(handoffs=["LOST"])) as destination:
            attempt = attempt_of(machine, towards(destination))
            await attempt.recover()
        shown = attempt.board.progress
        assert (shown.phase, shown.outcome) == (Phase.ABORTED, Outcome.FAILED)
        assert shown.failure is not None
        assert shown.failure.code == "destination-lost"
        assert machine.custody.record.state is State.RECLAIMED
        assert machine.machine.running


async def test_the_only_whole_copy_is_handed_over_though_the_source_died_at_its_stop(tmp_path: Path) -> None:
    report = IncomingReport(state="READY", highest_epoch=2, pause=1, process_alive=True, whole=True)
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.end()
        async with served(FakeDestination(report=report, handoffs=["ACTIVE"])) as destination:
            attempt = attempt_of(machine, towards(destination))
            await attempt.recover()
            assert destination.secrets == [SECRET]
        assert attempt.board.progress.outcome is Outcome.COMPLETED
        assert machine.custody.record.state is State.RETIRED


async def test_who_lost_the_journal_has_no_say_any_more(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        newer = await Custody.open(machine.journals, machine.hypervisor, MACHINE)
        attempt = attempt_of(machine)
        attempt.cancel()
        await attempt.run()
        assert attempt.open
        assert "no say" in attempt.board.progress.reason
        assert machine.machine.calls == []
        await newer.close()


async def test_an_attempt_speaks_of_itself_after_the_next_has_begun(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        attempt = attempt_of(machine)
        attempt.cancel()
        await attempt.run()

        def next_one(last: Record) -> Record:
            key = AttemptKey(MACHINE, B, 0, 1)
            return begin(last, key, destination="host-c", was_running=True, secret=SECRET, policy="{}")

        await machine.custody.write(next_one)
        assert (attempt.record.attempt, attempt.record.state, attempt.record.peer) == (A, State.ABORTED, "host-b")
        assert (attempt.key().attempt, attempt.key().epoch) == (A, 2)


async def test_what_a_later_life_of_the_agent_reports_is_newer_than_all_before(tmp_path: Path) -> None:
    """Else an orchestrator that saw the attempt come far takes its end for an old report, and never hears of it."""
    with leaving(tmp_path, State.RELEASED) as machine:
        earlier = attempt_of(machine)
        for phase in Phase:
            earlier.board.show(replace(earlier.board.progress, phase=phase))
        machine.custody = await Custody.open(machine.journals, machine.hypervisor, MACHINE)
        later = attempt_of(machine)
        assert later.board.progress.sequence > earlier.board.progress.sequence
