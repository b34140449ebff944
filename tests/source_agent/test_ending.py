"""How an attempt ends that does not complete: what is written, and what only then happens to the guest."""

import errno
from pathlib import Path

import pytest

from source_agent.ending import bring_to_owed, settle, take_back, tell_to_discard
from source_agent.insisting import insist
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE, Held
from tests.source_agent.departures import KEY, A, given_away, leaving
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.errors import InvalidInput, Unreachable, Unresolved
from vm_migration.handover.journal import read_last
from vm_migration.handover.journal_errors import JournalUncertain
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineError

READY = IncomingReport(state="READY", highest_epoch=2, pause=1, process_alive=True, whole=True)


def durable(machine: Held) -> State:
    return read_last(machine.folder / "journal", MACHINE).state


async def settled(machine: Held, destination: FakeDestination) -> State:
    return await settle(machine.custody, lambda: destination.link(A), KEY, "asked for")


@pytest.mark.parametrize("state", [State.OUTGOING, State.STOPPED])
async def test_aborted_is_durable_before_the_guest_resumes(tmp_path: Path, state: State) -> None:
    with leaving(tmp_path, state) as machine:
        seen = []
        machine.machine.before_run = lambda: seen.append(durable(machine))
        assert await settle(machine.custody, None, KEY, "asked for") is State.ABORTED
        assert machine.machine.calls == []
        await bring_to_owed(machine.custody)
        assert seen == [State.ABORTED]
        assert machine.machine.calls == ["run 1", "stop tracking"]
        record = machine.custody.record
        assert (record.reason, record.secret, record.run_confirmed, record.owned_epoch) == ("asked for", "", True, 1)


async def test_a_silent_process_lets_nothing_be_written_and_is_asked_again(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.silent = 1
        with pytest.raises(Unreachable):
            await settle(machine.custody, None, KEY, "asked for")
        assert (durable(machine), machine.machine.calls) == (State.STOPPED, [])
        machine.machine.silent = 2
        told: list[str] = []
        assert await insist(lambda: settle(machine.custody, None, KEY, "asked for"), told.append) is State.ABORTED
        assert len(told) == 2


async def test_a_silent_process_does_not_hold_up_the_end_of_rounds(tmp_path: Path) -> None:
    """An attempt could not be cancelled for 20 s while its machine's process was frozen."""
    with leaving(tmp_path, State.OUTGOING) as machine:
        machine.machine.silent = 1
        assert await settle(machine.custody, None, KEY, "asked for") is State.ABORTED
        assert not machine.custody.record.run_confirmed
        assert (await bring_to_owed(machine.custody)).run_confirmed


async def test_a_resumption_that_fails_is_tried_again_under_the_same_aborted(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:

        def fail() -> None:
            machine.machine.before_run = lambda: None
            raise MachineError("A device did not start")

        machine.machine.before_run = fail
        await settle(machine.custody, None, KEY, "asked for")
        with pytest.raises(MachineError):
            await bring_to_owed(machine.custody)
        assert not machine.custody.record.run_confirmed
        sequence = machine.custody.record.sequence
        assert await settle(machine.custody, None, KEY, "asked for") is State.ABORTED
        await bring_to_owed(machine.custody)
        assert machine.custody.record.sequence == sequence + 1  # the confirmation alone


async def test_a_release_of_which_nobody_knows_is_followed_by_aborted_alone(tmp_path: Path) -> None:
    disk = MemoryDisk()
    with leaving(tmp_path, State.STOPPED, disk) as machine:
        disk.failures[disk.steps + 2] = errno.EIO  # the write succeeds, its flush does not
        with pytest.raises(JournalUncertain):
            await machine.custody.write(given_away)
        assert machine.custody.uncertain
        assert machine.custody.record.state is State.STOPPED
        disk.failures[disk.steps + 2] = errno.EIO
        with pytest.raises(JournalUncertain):
            await settle(machine.custody, None, KEY, "asked for")
        assert machine.machine.calls == []  # neither resumed nor handed off
        assert await settle(machine.custody, None, KEY, "asked for") is State.ABORTED
        assert not machine.custody.uncertain


async def test_a_process_that_died_while_the_guest_ran_is_lost_and_its_folder_goes(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        machine.machine.end()
        assert await settle(machine.custody, None, KEY, "asked for") is State.LOST
        assert durable(machine) is State.LOST
        assert not machine.directory.path.exists()


async def test_a_whole_copy_at_the_destination_is_released_when_the_source_died_at_its_stop(tmp_path: Path) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.end()
        async with served(FakeDestination(report=READY)) as destination:
            assert await settled(machine, destination) is State.RELEASED
            assert destination.proofs == []
        assert machine.custody.record.secret


@pytest.mark.parametrize("found", ["DISCARDED", "LOST"])
async def test_a_destination_that_has_nothing_makes_it_lost(tmp_path: Path, found: str) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.end()
        async with served(FakeDestination(report=IncomingReport(state=found, highest_epoch=2))) as destination:
            assert await settled(machine, destination) is State.LOST


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        (IncomingReport(state="PREPARED", highest_epoch=2, process_alive=True), "DISCARDED", State.LOST),
        (IncomingReport(state="PREPARED", highest_epoch=2, process_alive=True), "READY", State.RELEASED),
        (IncomingReport(state="READY", highest_epoch=2, pause=1, process_alive=False), "LOST", State.LOST),
    ],
)
async def test_a_destination_in_between_is_asked_what_it_is(
    tmp_path: Path, before: IncomingReport, after: str, end: State
) -> None:
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.end()
        then = READY if after == "READY" else IncomingReport(state=after, highest_epoch=2)
        async with served(FakeDestination(report=before, discards=[after], after_discard=then)) as destination:
            with pytest.raises(Unresolved):
                await settled(machine, destination)
            assert destination.proofs == ["STOPPED"]
            assert durable(machine) is State.STOPPED
            assert await settled(machine, destination) is end


@pytest.mark.parametrize(
    "report", [None, IncomingReport(), IncomingReport(state="READY", highest_epoch=2, pause=7, process_alive=True)]
)
async def test_nothing_is_guessed(tmp_path: Path, report: IncomingReport | None) -> None:
    """The destination is silent, has no journal, or is READY at another stop."""
    with leaving(tmp_path, State.STOPPED) as machine:
        machine.machine.end()
        async with served(FakeDestination(report=report)) as destination:
            with pytest.raises(Unresolved):
                await settled(machine, destination)
        assert durable(machine) is State.STOPPED


async def test_a_released_machine_is_left_as_it_is(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        assert await settle(machine.custody, None, KEY, "asked for") is State.RELEASED
        assert machine.machine.calls == []


async def test_a_lost_destination_gives_the_machine_back_above_the_epoch_that_was_released(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        machine.machine.released = 2
        seen = []
        machine.machine.before_run = lambda: seen.append(durable(machine))
        assert await take_back(machine.custody) is State.RECLAIMED
        assert seen == [State.RECLAIMED]
        assert machine.machine.calls[0] == "run 3"
        assert machine.custody.record.owned_epoch == 3
        assert await take_back(machine.custody) is State.RECLAIMED  # asked again, it only confirms


async def test_nobody_has_what_both_have_lost(tmp_path: Path) -> None:
    with leaving(tmp_path, State.RELEASED) as machine:
        machine.machine.end()
        assert await take_back(machine.custody) is State.LOST


async def test_the_destination_is_told_until_it_has_heard(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        await settle(machine.custody, None, KEY, "asked for")
        silences: list[str | Exception] = [
            Unreachable("silent", "Not now"),
            Unresolved("journal-uncertain", "Its disk fails for a moment"),
            "DISCARDED",
        ]
        async with served(FakeDestination(discards=silences)) as destination, destination.link(A) as link:
            await tell_to_discard(link, KEY, machine.custody)
            assert destination.proofs == ["ABORTED"] * 3


async def test_a_destination_that_never_heard_of_it_is_told_once(tmp_path: Path) -> None:
    with leaving(tmp_path, State.OUTGOING) as machine:
        await settle(machine.custody, None, KEY, "asked for")
        unknown = InvalidInput("unknown-attempt", "Never heard of it")
        async with served(FakeDestination(discards=[unknown])) as destination, destination.link(A) as link:
            await tell_to_discard(link, KEY, machine.custody)
            assert destination.proofs == ["ABORTED"]
