"""An operator's word at a destination: what it starts, what it ends, and everything that it does not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.dest_agent.arrivals import A, arriving, whole
from tests.dest_agent.watched import Watched, says, watched
from tests.fakes.fake_machine import MACHINE
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import Refused, Stale, Unresolved
from vm_migration.handover.evidence import Absence, Process, view
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import State


class Site(Protocol):
    def __call__(self, state: State, *further: Callable[[Record], Record]) -> Watched: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with ExitStack() as stack:

        def make(state: State, *further: Callable[[Record], Record]) -> Watched:
            return stack.enter_context(watched(stack.enter_context(arriving(tmp_path, state, *further)), monkeypatch))

        yield make


def word(*, fenced: str = "host-a", attempt: str = A, epoch: int = 2) -> types_pb2.TakeRequest:
    key = types_pb2.AttemptKey(machine=MACHINE, attempt=attempt, epoch=epoch, term=1)
    return types_pb2.TakeRequest(key=key, highest_seen=7, fenced=fenced, reason="operator, by telephone")


async def test_a_ready_image_starts_above_every_epoch_seen(site: Site) -> None:
    here = site(State.READY)
    agent = here.new_agent()
    taken = await agent.take(word())
    assert (taken.state, taken.owned_epoch, taken.former_retired, taken.run_confirmed) == (State.TAKEN, 8, True, True)
    assert "operator, by telephone" in taken.reason
    assert here.machine.machine.calls[-1] == "run 8"
    assert (await agent.take(word())) == taken
    assert (await here.new_agent().take(word())).sequence == taken.sequence
    await agent.stop()
    assert here.active == [MACHINE]


async def test_a_process_that_is_silent_once_it_was_taken_is_started_when_asked_again(site: Site) -> None:
    here = site(State.READY)
    here.machine.machine.before_run = lambda: setattr(here.machine.machine, "silent", 2)
    agent = here.new_agent()
    with pytest.raises(Unresolved):
        await agent.take(word())
    assert (here.last.state, here.last.run_confirmed) == (State.TAKEN, False)
    here.machine.machine.silent, here.machine.machine.before_run = 0, lambda: None
    assert (await agent.take(word())).run_confirmed
    await agent.stop()


@pytest.mark.parametrize(
    ("request_", "code"),
    [(word(fenced="host-c"), "not-fenced"), (word(attempt="6f0e8d0a-1111-4222-8333-444455556666"), "stale-epoch")],
)
async def test_not_without_the_word_for_its_source_and_its_attempt(
    site: Site, request_: types_pb2.TakeRequest, code: str
) -> None:
    here = site(State.READY)
    with pytest.raises(Refused) as refused:
        await here.new_agent().take(request_)
    assert refused.value.code == code
    assert here.last.state is State.READY


async def test_not_while_the_source_answers(site: Site) -> None:
    here = site(State.READY)
    here.sources.word = says(State.RELEASED, released_epoch=2)
    with pytest.raises(Refused) as refused:
        await here.new_agent().take(word())
    assert refused.value.code == "host-answers"
    assert here.last.state is State.READY


@pytest.mark.parametrize(
    ("state", "further", "code"),
    [
        (State.PREPARED, (), "nothing-to-take"),
        (State.PREPARED, (whole,), "not-finished"),
        (State.ACTIVATING, (), "not-gone"),
        (State.ACTIVE, (), "nothing-to-take"),
        (State.DISCARDED, (), "nothing-to-take"),
    ],
)
async def test_not_what_is_not_whole_here_or_may_run(
    site: Site, state: State, further: tuple[Callable[[Record], Record], ...], code: str
) -> None:
    here = site(state, *further)
    with pytest.raises(Refused) as refused:
        await here.new_agent().take(word())
    assert refused.value.code == code
    assert here.last.state is state


async def test_not_an_image_that_is_gone(site: Site) -> None:
    here = site(State.READY)
    here.machine.machine.end()
    with pytest.raises(Refused) as refused:
        await here.new_agent().take(word())
    assert refused.value.code == "nothing-to-take"


@pytest.mark.parametrize("proven", [True, False])
async def test_a_machine_of_which_no_image_is_left_ends_as_lost_and_nobody_reclaims_on_it(
    site: Site, *, proven: bool
) -> None:
    here = site(State.ACTIVATING)
    here.machine.machine.end()
    if proven:
        here.sources.word = says(State.RELEASED, Process.GONE, released_epoch=2)
    lost = await here.new_agent().take(word(fenced="host-b" if proven else "host-a"))
    assert (lost.state, lost.attempt, lost.owned_epoch) == (State.LOST, None, 8)
    assert here.freed
    assert (await here.new_agent().take(word())) == lost
    # A source that comes back with its copy is not told that the machine never ran here.
    there = says(State.RELEASED, released_epoch=2).view
    seen = view(lost, A, 2, Process.GONE)
    assert seen.sight is Absence.ABOVE
    assert Action.RECLAIM_SOURCE not in decide(there, seen).actions
    assert Action.RETIRE_SOURCE in decide(there, seen).actions


async def test_no_machine_is_lost_whose_source_still_has_a_copy(site: Site) -> None:
    here = site(State.ACTIVATING)
    here.machine.machine.end()
    here.sources.word = says(State.RELEASED, released_epoch=2)
    with pytest.raises(Refused) as refused:
        await here.new_agent().take(word(fenced="host-b"))
    assert refused.value.code == "image-at-source"
    assert here.last.state is State.ACTIVATING


async def test_an_operators_word_stands_in_for_a_former_source(site: Site) -> None:
    here = site(State.ACTIVE)
    agent = here.new_agent()
    noted = await agent.note_retired(AttemptKey(MACHINE, A, 2, 1), fenced_by="operator, by telephone")
    assert noted.former_retired
    assert noted.reason == "host-a counts as retired: operator, by telephone"


async def test_a_question_about_the_machine_as_a_whole(site: Site) -> None:
    here = site(State.READY)
    told = await here.new_agent().describe(AttemptKey(MACHINE, "", 0, 0))
    assert (told.state, told.last_state, told.pause, told.whole) == ("READY", "READY", 1, True)
    assert (told.highest_epoch, told.owned_epoch, told.sequence) == (2, 0, here.last.sequence)
    assert '"secret":""' in told.record
    other = await here.new_agent().describe(AttemptKey(MACHINE, "6f0e8d0a-1111-4222-8333-444455556666", 1, 1))
    assert (other.state, other.last_state, other.whole) == ("", "READY", False)


async def test_what_was_owned_since_is_told_to_whoever_asks_for_an_attempt_long_past(site: Site) -> None:
    here = site(State.READY)
    await here.new_agent().take(word())
    told = await here.new_agent().describe(AttemptKey(MACHINE, "6f0e8d0a-1111-4222-8333-444455556666", 1, 1))
    assert told.state == "above"


async def test_the_highest_sequence_of_the_source_is_durable_with_ready(site: Site) -> None:
    here = site(State.READY, lambda record: record)
    assert here.last.policy == ""
    agent = here.new_agent()
    await agent.hear(AttemptKey(MACHINE, A, 2, 1), 40)
    with pytest.raises(Stale):
        await agent.hear(AttemptKey(MACHINE, A, 2, 1), 39)
    await agent.hear(AttemptKey(MACHINE, A, 2, 1), 0)
    await agent.hear(AttemptKey(MACHINE, A, 2, 1), 41)
