"""What somebody sees of an evacuation: a picture where it can be drawn, else a line where something happens."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.attempt import Fault, Outcome, Phase
from orchestrator.evacuation.document import complaint_of, counted
from orchestrator.evacuation.plan import Evacuation, Kind, Move, Raised, started
from orchestrator.evacuation.record import order_of, record_of, view_from
from orchestrator.evacuation.view import EvacuationView, view_of
from orchestrator.render.evacuation import EvacuationProgress, picture, show_evacuation
from tests.orchestrator.test_queueing import waiting
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.errors import InternalError, InvalidInput

MOVING = replace(waiting(7, "host-a", "host-b"), attempt="7777777788", phase=Phase.PRE_COPY)


def plan(*moves: Move) -> Evacuation:
    raised = (Raised("host-a", "out", 2, 1), Raised("host-b", "in", 2, 1))
    return Evacuation("ev-1", Kind.EVACUATE, "host-a", moves, 1.0, 2.0, parallel=2, raised=raised)


def middle() -> EvacuationView:
    moving = started(Move("m1", "mail", 3 << 20), MOVING.attempt)
    failed = Move("m2", "shop", 1 << 20, "host-b", ("x",), outcome=Outcome.FAILED, error=Fault("odd", "It broke", ""))
    return view_of(plan(moving, failed, Move("m3", "wiki", 4 << 20)), {MOVING.attempt: MOVING})


def shown(of: object, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    if isinstance(of, EvacuationView):
        show_evacuation(console, of)
    else:
        console.print(of)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_tells_of_the_whole_host_and_of_what_moves_first() -> None:
    lines = shown(picture(middle())).splitlines()
    assert "Evacuation of host-a: 0 of 3 moved, 1 failed, 1 moving, 1 waiting" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["mail", "wiki", "shop"]
    many = view_of(plan(*(Move(str(n), f"guest-{n:02}", 1) for n in range(40))), {})
    assert "and 28 more" in shown(picture(many))


def test_a_line_is_said_once_where_something_happens() -> None:
    console = Console(file=io.StringIO(), width=300)
    with EvacuationProgress(console) as progress:
        for _ in range(3):
            progress.update(middle())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "ev-1: 3 machines are to leave host-a; to cancel: viaduct cancel ev-1",
        "host-a sends up to 2 machines at once for this; 1 otherwise",
        "host-b takes up to 2 machines at once for this; 1 otherwise",
        "mail host-a -> host-b: moves, attempt 7777777788",
        "shop: failed: It broke",
    ]


def test_a_terminal_is_drawn_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with EvacuationProgress(console) as progress:
        progress.update(middle())
    assert isinstance(console.file, io.StringIO)
    assert "0 of 3 moved" in console.file.getvalue()


def test_how_it_stands_and_how_it_ended_is_printed_with_every_machine() -> None:
    text = shown(replace(middle(), cancel_requested=True))
    assert "goes on, 12 %, asked to cancel" in text
    assert all(name in text for name in ("mail", "shop", "wiki", "It broke"))
    assert "maintenance" not in text
    assert "viaduct restore host-a" in shown(replace(middle(), outcome=Outcome.FAILED))


def test_the_worst_machine_is_complained_of() -> None:
    view = replace(middle(), outcome=Outcome.FAILED)
    said = complaint_of(view)
    assert said is not None
    assert (said.code, said.exit_code) == ("odd", 4)
    assert said.message == "Evacuation of host-a: 0 of 3 moved, 1 failed, 1 moving, 1 waiting: shop: It broke"
    assert complaint_of(replace(middle(), moves=())) is None
    internal = replace(view, moves=(replace(view.moves[1], internal=True),))
    assert internal.exit_code == 1
    assert counted(internal) == "0 of 1 moved, 1 failed"


def test_what_the_daemon_tells_is_read_as_it_was() -> None:
    for view in (middle(), replace(middle(), outcome=Outcome.FAILED, undoes="ev-0", to=("host-b",))):
        assert view_from(record_of(view)) == view


def test_words_of_another_version_are_told() -> None:
    for record in (api.EvacuationRecord(kind="levitate"), api.EvacuationRecord(kind="restore", outcome="bliss")):
        with pytest.raises(InternalError, match=r"levitate|bliss"):
            view_from(record)
    for name in ("", "ev-", "ev-1", "5f0e8d0a-1111-4222-8333-444455556666"):
        with pytest.raises(InvalidInput, match="UUID"):
            order_of(api.SubmitEvacuationRequest(evacuation=name, host="host-a"))
