"""An evacuation while it goes on, drawn live or told in plain lines, and how it ended."""

from collections.abc import Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.attempt import Outcome, Phase
from orchestrator.evacuation.document import WHAT, counted
from orchestrator.evacuation.plan import Kind, Raised
from orchestrator.evacuation.view import EvacuationView, MoveView
from orchestrator.render.live_region import LiveRegion
from orchestrator.render.quantities import size, span

_SHOWN: Final = 12
"""Machines of a picture: those that move come first, then those that wait, then those that have ended."""
_BEFORE: Final = frozenset({Phase.QUEUED.value, Phase.REFUSED.value})
_COLOURS: Final = {Outcome.COMPLETED: "green", Outcome.CANCELLED: "yellow", None: "cyan"}


class EvacuationProgress(LiveRegion):
    """Shows the last state that it was given, while the context is entered.

    A console that cannot be drawn on gets a line where a machine begins to move, where its move ends, and where a host
    needs more slots than usual.
    """

    def __init__(self, console: Console) -> None:
        draws = console.is_terminal and not console.is_dumb_terminal
        super().__init__(console, draws=draws)
        self._console = console
        self._told: set[str] = set()

    def update(self, view: EvacuationView) -> None:
        """Show an evacuation as it stands; its identifier and raised slots are told in lines of their own, once."""
        for line in _once(view) if not view.ended or self._told else ():
            self._say(line)
        if self.draws:
            self.draw(picture(view))
        else:
            for one in view.moves:
                self._say(_line(one))

    def _say(self, line: str) -> None:
        if line and line not in self._told:
            self._told.add(line)
            self._console.print(line, soft_wrap=True, markup=False)


def picture(view: EvacuationView) -> RenderableType:
    """Return an evacuation for a terminal."""
    head = Text.assemble((WHAT[view.kind], "bold"), f" of {view.host}: {counted(view)}")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=100, completed=view.percent, width=40), f"{view.percent:3d} %")
    table = Table.grid(padding=(0, 2))
    ordered = sorted(view.moves, key=lambda one: (one.outcome is not None, not one.attempts, one.name))
    for one in ordered[:_SHOWN]:
        table.add_row(
            one.name, _way(one), Text(_state(one), style=_COLOURS.get(one.outcome, "red")), escape(one.reason)
        )
    parts: list[RenderableType] = [head, bar, table]
    if len(ordered) > _SHOWN:
        parts.append(Text(f"and {len(ordered) - _SHOWN} more", style="dim"))
    return Group(*parts)


def show_evacuation(console: Console, view: EvacuationView) -> None:
    """Print one with all of its machines."""
    state = view.outcome.value if view.outcome is not None else f"goes on, {view.percent} %"
    if view.cancel_requested and not view.ended:
        state += ", asked to cancel"
    console.print(f"[bold]{WHAT[view.kind]}[/bold] of {view.host}: {state}; {counted(view)}")
    console.print(f"  [dim]{view.evacuation}[/dim]")
    for raised in view.raised:
        console.print(f"  {_raised(raised)}", markup=False)
    if view.moves:
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for heading in ("machine", "memory", "way", "state", "downtime", "attempt", ""):
            table.add_column(heading)
        for one in view.moves:
            table.add_row(
                one.name,
                size(one.ram_bytes),
                _way(one),
                Text(_state(one), style=_COLOURS.get(one.outcome, "red")),
                span(one.downtime_ms) if one.downtime_ms else "",
                one.attempts[-1][:8] if one.attempts else "",
                escape(one.error.message if one.error is not None else one.reason),
            )
        console.print(table)
    if view.ended and view.kind is Kind.EVACUATE:
        text = f"{view.host} stays in maintenance. Bring its machines back: viaduct restore {view.host}; "
        console.print(f"{text}leave them: viaduct host maintenance {view.host} off", soft_wrap=True)


def _once(view: EvacuationView) -> Iterable[str]:
    verb = "leave" if view.kind is Kind.EVACUATE else "come back to"
    machines = "1 machine is to" if len(view.moves) == 1 else f"{len(view.moves)} machines are to"
    yield f"{view.evacuation}: {machines} {verb} {view.host}; to cancel: viaduct cancel {view.evacuation}"
    yield from (_raised(one) for one in view.raised)


def _raised(one: Raised) -> str:
    verb = "sends" if one.direction == "out" else "takes"
    return f"{one.host} {verb} up to {one.slots} machines at once for this; {one.usual} otherwise"


def _line(one: MoveView) -> str:
    if one.outcome is not None:
        why = f": {one.error.message}" if one.error is not None else f": {one.reason}" if one.reason else ""
        return f"{_named(one)}: {one.outcome}{why}"
    begun = one.source and one.phase not in _BEFORE
    return f"{_named(one)}: moves, attempt {one.attempts[-1]}" if begun else ""


def _named(one: MoveView) -> str:
    return f"{one.name} {_way(one)}".rstrip()


def _way(one: MoveView) -> str:
    return f"{one.source} -> {one.destination}" if one.source else ""


def _state(one: MoveView) -> str:
    if one.outcome is not None:
        return one.outcome.value
    return f"{one.phase} {one.percent} %" if one.phase else "waits"
