"""What a destination agent that was restarted makes of each state, beside what each arrival's source says."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from uuid import UUID

import pytest

from dest_agent.sources import Word
from tests.dest_agent.arrivals import KEY, PREPARED, SECRET, A, arriving, not_wanted, whole
from tests.dest_agent.watched import SILENT, Watched, journal_file, says, source_record, watched
from tests.fakes.fake_machine import MACHINE
from vm_migration.errors import Missed, Stale
from vm_migration.handover.evidence import Process
from vm_migration.handover.ownership import former_retired
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import State
from vm_migration.machine.run_directory import RunDirectory


class Site(Protocol):
    def __call__(self, state: State, *further: Callable[[Record], Record]) -> Watched: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ExitStack() as stack:

        def make(state: State, *further: Callable[[Record], Record]) -> Watched:
            return stack.enter_context(watched(stack.enter_context(arriving(tmp_path, state, *further)), monkeypatch))

        yield make


def forget_the_process(here: Watched) -> None:
    """Write the journal anew as if its launch had been cut off before the journal named the process."""
    journal_file(here.machine.folder).unlink()
    with here.machine.journals.create(PREPARED) as journal:
        journal.append(not_wanted(journal.last))


@pytest.mark.parametrize(
    ("state", "gone", "then"),
    [
        (State.PREPARED, False, State.DISCARDED),
        (State.PREPARED, True, State.DISCARDED),
        (State.READY, False, State.READY),
        (State.READY, True, State.LOST),
        (State.ACTIVATING, False, State.ACTIVE),
    ],
)
async def test_a_restart_does_what_this_side_alone_decides(
    site: Site, state: State, *, gone: bool, then: State
) -> None:
    here = site(state)
    if gone:
        here.machine.machine.end()
    async with here.agent():
        assert here.last.state is then
        assert here.freed is (then in (State.DISCARDED, State.LOST))
    assert here.active == ([MACHINE] if then is State.ACTIVE else [])


async def test_a_restart_keeps_what_may_be_the_only_whole_copy(site: Site) -> None:
    here = site(State.PREPARED, whole)
    async with here.agent() as agent:
        assert here.last.state is State.PREPARED
        assert "host-a" in agent.complaint(MACHINE)


async def test_a_restart_over_an_activation_that_died_is_for_a_person_and_frees_nothing(site: Site) -> None:
    here = site(State.ACTIVATING)
    here.machine.machine.end()
    async with here.agent() as agent:
        assert here.last.state is State.ACTIVATING
        assert agent.complaint(MACHINE).startswith("activation-unknown: ")
        assert (await agent.go_on(MACHINE)).state is State.ACTIVATING


@pytest.mark.parametrize("asked", [False, True])
async def test_an_activation_that_died_gives_way_to_a_machine_that_was_taken_at_any_host(
    site: Site, *, asked: bool
) -> None:
    """Its source knew nothing of that, and it waited for a person who had decided long ago."""
    here = site(State.ACTIVATING)
    taken = source_record(State.TAKEN, attempt="earlier", epoch=1, owned_epoch=9, highest_epoch=9)
    others = [(taken, Process.ALIVE)]
    here.sources.others = [] if asked else others
    here.machine.machine.end()
    async with here.agent() as agent:
        here.sources.others = others
        if asked:
            assert (await agent.go_on(MACHINE)).state is State.RETIRED
        assert here.last.state is State.RETIRED
        assert here.last.highest_epoch == 9
        assert here.freed
        assert agent.complaint(MACHINE) == ""


@pytest.mark.parametrize(("alive", "then"), [(Process.ALIVE, State.RETIRED), (Process.GONE, State.ACTIVE)])
async def test_an_activation_that_may_be_repeated_gives_way_to_a_machine_that_lives(
    site: Site, alive: Process, then: State
) -> None:
    here = site(State.ACTIVATING)
    taken = source_record(State.TAKEN, attempt="earlier", epoch=1, owned_epoch=9, highest_epoch=9)
    here.sources.others = [(taken, alive)]
    async with here.agent():
        assert here.last.state is then
    assert any(call.startswith("run") for call in here.machine.machine.calls) is (then is State.ACTIVE)


async def test_a_ready_machine_is_attached_again_so_that_an_older_agent_is_cut_off(site: Site) -> None:
    here = site(State.READY)
    async with here.agent() as agent:
        (attached,) = (call for call in here.machine.machine.calls if call.startswith("attach"))
        assert attached == f"attach 2 {here.last.controller}"
        assert (await agent.hand_off(KEY, 1, SECRET)).state == "ACTIVE"


@pytest.mark.parametrize("state", [State.PREPARED, State.READY])
@pytest.mark.parametrize(
    "word", [says(State.ABORTED), says(State.LOST), says(State.OUTGOING, attempt=None, highest_epoch=9)]
)
async def test_an_end_that_the_source_proves_discards(site: Site, state: State, word: Word) -> None:
    here = site(state)
    here.sources.word = word
    async with here.agent():
        assert here.last.state is State.DISCARDED
        assert here.freed


@pytest.mark.parametrize("state", [State.RELEASED, State.RETIRED])
async def test_a_journal_put_back_to_before_ready_frees_nothing(site: Site, state: State) -> None:
    """A host snapshot restored at the destination: its source released what this journal says never came in full."""
    here = site(State.PREPARED)
    here.sources.word = says(state, released_epoch=2)
    async with here.agent() as agent:
        assert here.last.state is State.PREPARED
        assert not here.freed
        assert agent.complaint(MACHINE).startswith("contradiction: ")
        assert "destroy" not in here.machine.machine.calls


@pytest.mark.parametrize("state", [State.PREPARED, State.READY])
async def test_a_journal_put_back_while_its_machine_runs_stops_nothing_and_frees_nothing(
    site: Site, state: State
) -> None:
    here = site(state)
    here.machine.machine.incoming, here.machine.machine.running = False, True
    here.sources.word = says(State.ABORTED)
    async with here.agent() as agent:
        assert here.last.state is state
        assert here.machine.machine.process.poll() is None
        assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")


async def test_a_journal_put_back_behind_its_process_frees_nothing(site: Site) -> None:
    here = site(State.PREPARED)
    here.machine.machine.fenced = True
    async with here.agent() as agent:
        assert here.last.state is State.PREPARED
        assert here.machine.machine.process.poll() is None
        assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")


async def test_a_journal_put_back_to_ready_meets_a_source_that_has_retired(site: Site) -> None:
    here = site(State.READY)
    here.sources.word = says(State.RETIRED, released_epoch=2)
    async with here.agent() as agent:
        assert here.last.state is State.READY
        assert not here.freed
        assert agent.complaint(MACHINE).startswith("contradiction: ")


async def test_the_end_of_a_journal_that_was_put_back_is_no_proof(site: Site) -> None:
    here = site(State.READY)
    agent = here.new_agent()
    await agent.hear(KEY, 40)
    here.sources.word = says(State.ABORTED, sequence=12)
    await agent.go_on(MACHINE)
    assert here.last.state is State.READY
    assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")
    with pytest.raises(Stale) as refused:
        await agent.hear(KEY, 39)
    assert refused.value.code == "journal-rolled-back"
    await agent.stop()


async def test_an_end_from_before_the_stop_whose_image_is_here_is_no_proof(site: Site) -> None:
    """Its source's journal was put back from STOPPED to OUTGOING, and its process is gone: the only copy is here."""
    here = site(State.READY)
    async with here.agent() as agent:
        with pytest.raises(Stale) as refused:
            await agent.discard(KEY, source_record(State.LOST, pause=0, sequence=99))
        assert refused.value.code == "journal-rolled-back"
        assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")
        here.sources.word = says(State.LOST, pause=0, sequence=99)
        await agent.go_on(MACHINE)
        assert here.last.state is State.READY
        assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")


async def test_a_call_from_a_later_epoch_than_this_journal_knows_is_told(site: Site) -> None:
    here = site(State.READY)
    async with here.agent() as agent:
        with pytest.raises(Missed):
            await agent.hand_off(AttemptKey(MACHINE, A, 7, 1), 1, SECRET)
        assert agent.complaint(MACHINE).startswith("missed-epoch: ")
        assert here.last.state is State.READY


async def test_a_taken_machine_at_the_source_retires_this_copy(site: Site) -> None:
    here = site(State.ACTIVE)
    here.sources.word = says(State.TAKEN, highest_epoch=9, owned_epoch=9)
    async with here.agent():
        assert here.last.state is State.RETIRED
        assert here.machine.machine.calls[-2:] == ["pause", "destroy"]
        assert here.freed


async def test_a_machine_that_its_source_says_never_left_is_paused_and_kept(site: Site) -> None:
    here = site(State.ACTIVE)
    here.sources.word = says(State.ABORTED)
    async with here.agent() as agent:
        assert here.last.state is State.ACTIVE
        assert (here.last.was_running, here.last.run_confirmed) == (False, True)
        assert here.last.reason.startswith("contradiction: ")
        assert not here.machine.machine.running
        assert not here.freed
        assert agent.complaint(MACHINE).startswith("contradiction: ")
        calls = len(here.machine.machine.calls)
        await agent.go_on(MACHINE)
        assert len(here.machine.machine.calls) == calls  # once is enough


async def test_a_former_source_that_has_retired_is_noted(site: Site) -> None:
    here = site(State.ACTIVE)
    here.sources.word = says(State.RETIRED, released_epoch=2)
    async with here.agent() as agent:
        assert here.last.former_retired
        assert agent.complaint(MACHINE) == ""
    assert here.machine.machine.calls == []  # the machine is its source agent's to command


async def test_a_former_source_that_is_silent_is_waited_for(site: Site) -> None:
    here = site(State.ACTIVE)
    async with here.agent() as agent:
        assert not here.last.former_retired
        assert agent.complaint(MACHINE).startswith("former-source-open: ")
        here.sources.word = says(State.RETIRED, released_epoch=2)
        assert (await agent.go_on(MACHINE)).former_retired


async def test_a_former_source_that_the_other_agent_has_seen_retired_is_waited_for_no_more(site: Site) -> None:
    here = site(State.ACTIVE)
    async with here.agent() as agent:
        assert agent.complaint(MACHINE).startswith("former-source-open: ")
        await here.machine.custody.write(former_retired)  # for a Begin of its own, in a process of its own
        await agent.go_on(MACHINE)
        assert agent.complaint(MACHINE) == ""


async def test_a_process_that_no_journal_names_and_that_never_ran_is_ended(site: Site) -> None:
    """Its launch was cut off between instance.json and the journal."""
    here = site(State.DISCARDED)
    forget_the_process(here)
    async with here.agent():
        assert here.freed
        assert "destroy" in here.machine.machine.calls


async def test_a_process_that_no_journal_names_and_that_runs_is_left_alone(site: Site) -> None:
    here = site(State.DISCARDED)
    here.machine.machine.incoming = False
    forget_the_process(here)
    async with here.agent() as agent:
        assert here.machine.machine.process.poll() is None
        assert agent.complaint(MACHINE).startswith("journal-rolled-back: ")


async def test_a_folder_that_a_launch_left_empty_is_removed(site: Site) -> None:
    here = site(State.READY)
    run = RunDirectory(here.machine.folder / "run")
    empty = run.create(UUID(int=7))
    async with here.agent():
        assert not empty.exists()
        assert not here.freed


async def test_what_waits_is_watched(site: Site) -> None:
    here = site(State.READY)
    assert here.sources.word is SILENT
    async with here.agent() as agent:
        assert agent.complaint(MACHINE).startswith("handover-waiting: ")
        here.sources.word = says(State.RELEASED, released_epoch=2)
        assert (await agent.go_on(MACHINE)).state is State.READY
        assert "secret" in agent.complaint(MACHINE)
