"""Every pair of states, reachability and liveness, against the table of docs/protocol/handover.md written out here.

The rows are those of the document, in its words and none of the code's; the first that fits a case says what follows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from vm_migration.handover.evidence import Absence, Process, SideView, Sight
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import State

A = "5f0e8d0a-1111-4222-8333-444455556666"
EPOCH = 5
ALIVE, GONE, UNKNOWN = Process.ALIVE, Process.GONE, Process.UNKNOWN
SILENT, NOTHING, PASSED, ABOVE = Absence.UNREACHABLE, Absence.NOTHING, Absence.PASSED, Absence.ABOVE
EVERYTHING: tuple[Sight, ...] = (*State, *Absence)

IMAGE = (State.PREPARED, State.READY)
RAN = (State.ACTIVATING, State.ACTIVE, State.RETIRED)
"""RETIRED at a destination: it ran there, and gave way to another host's TAKEN."""
HIGHER = (State.TAKEN, ABOVE)
NOT_A_DESTINATIONS = (
    State.OWNER,
    State.OUTGOING,
    State.STOPPED,
    State.RELEASED,
    State.ABORTED,
    State.RECLAIMED,
    State.DESTROYED,
)
NOT_A_SOURCES = (
    State.OWNER,
    State.PREPARED,
    State.READY,
    State.ACTIVATING,
    State.ACTIVE,
    State.DISCARDED,
    State.DESTROYED,
)

Actions = tuple[Action, ...]
NONE: Actions = ()
ASK: Actions = (Action.ASK,)
PAGE: Actions = (Action.PAUSE_SOURCE, Action.PAUSE_DESTINATION, Action.PAGE)
ABORT: Actions = (Action.ABORT_SOURCE,)
ABORT_AND_RESUME: Actions = (Action.ABORT_SOURCE, Action.RESUME_SOURCE)
RESUME: Actions = (Action.RESUME_SOURCE,)
LOSE: Actions = (Action.LOSE_SOURCE,)
LOSE_THERE: Actions = (Action.LOSE_DESTINATION,)
DISCARD: Actions = (Action.DISCARD_DESTINATION,)
RELEASE: Actions = (Action.RELEASE_SOURCE, Action.HAND_OFF)
RECLAIM: Actions = (Action.RECLAIM_SOURCE, Action.RESUME_SOURCE)
ACTIVATE: Actions = (Action.ACTIVATE_DESTINATION,)
GIVE_WAY_HERE: Actions = (Action.PAUSE_SOURCE, Action.RETIRE_SOURCE)
GIVE_WAY_THERE: Actions = (Action.PAUSE_DESTINATION, Action.RETIRE_DESTINATION)
RESUME_THERE: Actions = (Action.RESUME_DESTINATION,)


@dataclass(frozen=True, slots=True)
class Case:
    """One pair, with what the clocks say."""

    source: SideView
    destination: SideView
    past_deadline: bool
    over_bound: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Cases, as a line of the table names them; what is not named is any."""

    source: Iterable[Sight]
    destination: Iterable[Sight]
    follows: Actions
    process: Iterable[Process] = Process
    there: Iterable[Process] = Process
    same_pause: bool | None = None
    whole: bool | None = None
    past_deadline: bool | None = None
    over_bound: bool | None = None
    epochs: str = ""
    """How the source's highest epoch compares with the destination's, where it matters."""

    def fits(self, case: Case) -> bool:
        source, destination = case.source, case.destination
        higher = (source.highest_epoch > destination.highest_epoch) - (source.highest_epoch < destination.highest_epoch)
        return (
            source.sight in tuple(self.source)
            and destination.sight in tuple(self.destination)
            and source.process in tuple(self.process)
            and destination.process in tuple(self.there)
            and self.same_pause in {None, source.pause == destination.pause}
            and self.whole in {None, destination.whole}
            and self.past_deadline in {None, case.past_deadline}
            and self.over_bound in {None, case.over_bound}
            and self.epochs in {"", "<=>"[higher + 1]}
        )


TABLE: tuple[Row, ...] = (
    # a destination's journal never says these of the attempt
    Row(EVERYTHING, NOT_A_DESTINATIONS, PAGE),
    # both have left the attempt behind
    Row((PASSED, ABOVE), (PASSED, ABOVE), NONE),
    # TAKEN on either side: its holder owns the machine, also when it has gone on since; other copies retire
    Row((State.TAKEN,), (State.TAKEN,), PAGE, epochs="="),
    Row((State.TAKEN,), (State.TAKEN,), (*GIVE_WAY_THERE, *RESUME), process=(ALIVE,), epochs=">"),
    Row((State.TAKEN,), (State.TAKEN,), GIVE_WAY_THERE, epochs=">"),
    Row((State.TAKEN,), (State.TAKEN,), (*GIVE_WAY_HERE, *RESUME_THERE), there=(ALIVE,), epochs="<"),
    Row((State.TAKEN,), (State.TAKEN,), GIVE_WAY_HERE, epochs="<"),
    Row(HIGHER, HIGHER, PAGE),
    Row((State.TAKEN,), IMAGE, (*DISCARD, *RESUME), process=(ALIVE,)),
    Row(HIGHER, IMAGE, DISCARD),
    Row((State.TAKEN,), (State.ACTIVATING, State.ACTIVE), (*GIVE_WAY_THERE, *RESUME), process=(ALIVE,)),
    Row(HIGHER, (State.ACTIVATING, State.ACTIVE), GIVE_WAY_THERE),
    Row((State.TAKEN,), EVERYTHING, RESUME, process=(ALIVE,)),
    Row(HIGHER, EVERYTHING, NONE),
    Row(NOT_A_SOURCES, HIGHER, PAGE),
    Row((State.RECLAIMED,), HIGHER, PAGE, epochs=">"),
    Row((State.RECLAIMED,), HIGHER, PAGE, epochs="="),
    Row((NOTHING,), (State.TAKEN,), (Action.PAUSE_SOURCE, Action.PAGE, *RESUME_THERE), there=(ALIVE,)),
    Row((NOTHING,), HIGHER, (Action.PAUSE_SOURCE, Action.PAGE)),
    Row((State.RETIRED, State.LOST, SILENT, PASSED), (State.TAKEN,), RESUME_THERE, there=(ALIVE,)),
    Row((State.RETIRED, State.LOST, SILENT, PASSED), HIGHER, NONE),
    Row(EVERYTHING, (State.TAKEN,), (*GIVE_WAY_HERE, *RESUME_THERE), there=(ALIVE,)),
    Row(EVERYTHING, HIGHER, GIVE_WAY_HERE),
    # a source's journal never says these of the attempt
    Row(NOT_A_SOURCES, EVERYTHING, PAGE),
    # OUTGOING, STOPPED, ABORTED, LOST with ACTIVATING or ACTIVE, without a TAKEN: cannot be; RECLAIMED is on LOST alone
    # a machine that was taken at its destination, and given away there, while its source was off (ADR 0009)
    Row((State.STOPPED, State.RELEASED), (State.RETIRED,), (Action.RETIRE_SOURCE,), process=(GONE,)),
    Row((State.OUTGOING, State.STOPPED, State.ABORTED, State.LOST, State.RECLAIMED, PASSED, NOTHING), RAN, PAGE),
    # OUTGOING
    Row((State.OUTGOING,), EVERYTHING, ASK, process=(UNKNOWN,)),
    Row((State.OUTGOING,), IMAGE, (*LOSE, *DISCARD), process=(GONE,)),
    Row((State.OUTGOING,), EVERYTHING, LOSE, process=(GONE,)),
    Row((State.OUTGOING,), (SILENT,), ASK, past_deadline=False),
    Row((State.OUTGOING,), IMAGE, (*ABORT, *DISCARD)),
    Row((State.OUTGOING,), EVERYTHING, ABORT),
    # STOPPED
    Row((State.STOPPED,), EVERYTHING, ASK, process=(UNKNOWN,)),
    Row((State.STOPPED,), (State.READY,), RELEASE, (ALIVE,), (ALIVE,), same_pause=True, over_bound=False),
    Row((State.STOPPED,), IMAGE, (*ABORT_AND_RESUME, *DISCARD), process=(ALIVE,)),
    Row((State.STOPPED,), EVERYTHING, ABORT_AND_RESUME, process=(ALIVE,)),
    Row((State.STOPPED,), (State.READY,), (*LOSE_THERE, *LOSE), there=(GONE,)),
    Row((State.STOPPED,), (State.READY,), PAGE, same_pause=False),
    Row((State.STOPPED,), (State.READY,), RELEASE, there=(ALIVE,)),
    Row((State.STOPPED,), (State.PREPARED,), (Action.FINISH_OR_GIVE_UP,)),
    Row((State.STOPPED,), (State.DISCARDED, State.LOST, PASSED), LOSE),
    Row((State.STOPPED,), EVERYTHING, ASK),
    # RELEASED
    Row((State.RELEASED,), (State.READY,), (*LOSE_THERE, *RECLAIM), (ALIVE,), (GONE,)),
    Row((State.RELEASED,), (State.READY,), (*LOSE_THERE, *LOSE), (GONE,), (GONE,)),
    Row((State.RELEASED,), (State.READY,), (*LOSE_THERE, *ASK), (UNKNOWN,), (GONE,)),
    Row((State.RELEASED,), (State.READY,), (Action.HAND_OFF,), same_pause=True),
    Row((State.RELEASED,), (State.LOST,), RECLAIM, process=(ALIVE,)),
    Row((State.RELEASED,), (State.LOST,), LOSE, process=(GONE,)),
    Row((State.RELEASED,), (State.LOST,), ASK),
    Row((State.RELEASED,), (State.ACTIVE,), (Action.RETIRE_SOURCE,)),
    Row((State.RELEASED,), (SILENT, State.RETIRED), ASK),
    # RETIRED: what it gave way to a higher TAKEN is not the destination's
    Row((State.RETIRED,), (State.ACTIVATING, State.ACTIVE), (Action.PAUSE_DESTINATION, Action.PAGE), epochs=">"),
    Row((State.RETIRED,), (State.ACTIVE,), (Action.RETIRE_SOURCE,)),
    Row((State.RETIRED,), (SILENT, State.RETIRED), NONE),
    # RELEASED, RETIRED, silent | ACTIVATING
    Row((State.RELEASED, State.RETIRED, SILENT), (State.ACTIVATING,), ACTIVATE, there=(ALIVE,)),
    Row((State.RELEASED, State.RETIRED, SILENT), (State.ACTIVATING,), (Action.RECOVER,), there=(GONE,)),
    Row((State.RELEASED, State.RETIRED, SILENT), (State.ACTIVATING,), ASK),
    # RELEASED, RETIRED | nothing, PREPARED, DISCARDED, and what else cannot be
    Row((State.RELEASED, State.RETIRED), EVERYTHING, PAGE),
    # ABORTED, RECLAIMED: the machine is the source's
    Row((State.RECLAIMED,), IMAGE, PAGE),
    Row((State.ABORTED,), IMAGE, (*RESUME, *DISCARD), process=(ALIVE,)),
    Row((State.ABORTED,), IMAGE, (*LOSE, *DISCARD), process=(GONE,)),
    Row((State.ABORTED,), IMAGE, (*DISCARD, *ASK)),
    Row((State.ABORTED, State.RECLAIMED), EVERYTHING, RESUME, process=(ALIVE,)),
    Row((State.ABORTED, State.RECLAIMED), EVERYTHING, LOSE, process=(GONE,)),
    Row((State.ABORTED, State.RECLAIMED), EVERYTHING, ASK),
    # ended, by its journal | PREPARED, READY -> discards
    Row((State.LOST, PASSED), IMAGE, DISCARD),
    Row((State.LOST, PASSED), EVERYTHING, NONE),
    # the source's journal holds the machine and not the attempt: it is not as it was
    Row((NOTHING,), EVERYTHING, ASK),
    # silent
    Row((SILENT,), (State.PREPARED,), DISCARD, whole=False, past_deadline=True),
    Row((SILENT,), (State.PREPARED,), ASK, whole=False),
    Row((SILENT,), IMAGE, LOSE_THERE, there=(GONE,)),
    Row((SILENT,), IMAGE, ASK),
    Row((SILENT,), (State.ACTIVE,), NONE),
    Row((SILENT,), EVERYTHING, ASK),
)


def epochs_of(sight: Sight) -> tuple[int, ...]:
    """The highest epochs with which a journal can say so."""
    above = {
        SILENT: (0,),
        State.TAKEN: (EPOCH + 1, EPOCH + 2),
        State.RETIRED: (EPOCH, EPOCH + 3),
        State.RECLAIMED: (EPOCH + 1, EPOCH + 3),
        PASSED: (EPOCH + 1,),
        ABOVE: (EPOCH + 1,),
    }
    return above.get(sight, (EPOCH,))


def views(sight: Sight, *, pauses: tuple[int, ...], wholes: tuple[bool, ...]) -> Iterator[SideView]:
    for process, epoch, pause, whole in product(Process, epochs_of(sight), pauses, wholes):
        yield SideView(A, sight, process, epoch, pause, whole, isinstance(sight, State))


def cases(sight: Sight) -> Iterator[Case]:
    for source in views(sight, pauses=(1,), wholes=(False,)):
        for there in EVERYTHING:
            for destination in views(there, pauses=(1, 2), wholes=(False, True)):
                for past_deadline, over_bound in product((False, True), repeat=2):
                    yield Case(source, destination, past_deadline, over_bound)


@pytest.mark.parametrize("sight", EVERYTHING)
def test_every_case_follows_the_first_row_that_fits(sight: Sight) -> None:
    for case in cases(sight):
        row = next((row for row in TABLE if row.fits(case)), None)
        assert row is not None, case
        found = decide(
            case.source, case.destination, past_deadline=case.past_deadline, over_pause_bound=case.over_bound
        )
        assert found.actions == row.follows, (case, found.reason)


def test_every_row_is_met() -> None:
    met = set()
    for sight in EVERYTHING:
        met |= {next(index for index, row in enumerate(TABLE) if row.fits(case)) for case in cases(sight)}
    assert met == set(range(len(TABLE)))
