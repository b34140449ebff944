"""Updates of machines in their hosts: while they go on, and how they ended."""

from typing import Final

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.attempt import Attempt, Outcome
from orchestrator.render.live_region import LiveRegion
from orchestrator.render.notices import show_notices
from orchestrator.render.quantities import rate, span
from orchestrator.updating.document import standstill
from orchestrator.updating.fleet import FleetResult

_STYLE: Final = {Outcome.COMPLETED: "green", Outcome.CANCELLED: "yellow", Outcome.REFUSED: "yellow", None: "cyan"}


class UpdatesProgress(LiveRegion):
    """Shows the updates that are under way, and tells a line of each that has ended."""

    def __init__(self, console: Console, machines: int) -> None:
        super().__init__(console, draws=console.is_terminal and not console.is_dumb_terminal)
        self._console = console
        self._machines = machines
        self._ended = 0
        self._open: dict[str, Attempt] = {}

    def update(self, attempt: Attempt) -> None:
        """Show one as it stands."""
        self._open[attempt.attempt] = attempt
        self._draw()

    def ended(self, attempt: Attempt) -> Attempt:
        """Tell of one that has ended, and return it."""
        self._open.pop(attempt.attempt, None)
        self._ended += 1
        self._console.print(f"{self._ended} of {self._machines}: {_line(attempt)}", soft_wrap=True, markup=False)
        self._draw()
        return attempt

    def _draw(self) -> None:
        lines = [Text.assemble((one.name, "bold"), f"  {one.phase}  {one.reason}") for one in self._open.values()]
        self.draw(Group(Text(f"{self._ended} of {self._machines} updated"), *lines))


def show_update(console: Console, attempt: Attempt) -> None:
    """Print one update."""
    words = attempt.outcome.value if attempt.outcome is not None else f"open: {attempt.phase}"
    if attempt.outcome is None and not attempt.driver and attempt.report is None:  # only asked about
        words = _judged(attempt)
    console.print(f"[bold]{attempt.name}[/bold]  on {attempt.source}  [{_STYLE.get(attempt.outcome, 'red')}]{words}[/]")
    if attempt.report is not None:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_row("attempt", f"{attempt.attempt}, epoch {attempt.epoch}")
        table.add_row("total", span(attempt.report.total_ms))
        if stood := standstill(attempt):
            table.add_row("downtime", f"{span(stood.downtime_ms)} (exact, one clock)")
            parts = (
                ("handing over", stood.device_state_ms),
                ("ready", stood.verify_ms),
                ("release", stood.handoff_ms),
                ("resume", stood.resume_ms),
            )
            table.add_row("", ", ".join(f"{name} {span(value)}" for name, value in parts))
        if attempt.report.HasField("guest"):
            guest = attempt.report.guest
            rates = f"CPU {rate(guest.dirty_bytes_per_s)}, DMA {rate(guest.dma_bytes_per_s)}"
            table.add_row("guest", f"{guest.jobs_done} jobs, {guest.errors} errors, {rates}")
        console.print(table)
    show_notices(console, attempt.blockers, attempt.warnings)


def show_updates(console: Console, host: str, found: FleetResult) -> None:
    """Print all updates of a host."""
    done = sum(one.outcome is Outcome.COMPLETED for one in found.ended)
    console.print(f"[bold]{host}[/bold]: {done} of {len(found.ended) + len(found.left)} machines updated")
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("machine", "state", "downtime", "attempt", ""):
        table.add_column(heading)
    for one in found.ended:
        stood, state = standstill(one), one.outcome.value if one.outcome is not None else _judged(one)
        table.add_row(
            one.name,
            Text(state, style=_STYLE.get(one.outcome, "red")),
            span(stood.downtime_ms) if stood else "",
            one.attempt[:8],
            escape(_why(one)),
        )
    for name in found.left:
        table.add_row(name, Text("not begun", style="dim"), "", "", "")
    console.print(table)


def _judged(attempt: Attempt) -> str:
    return "cannot be updated" if attempt.blockers else "can be updated"


def _why(attempt: Attempt) -> str:
    if attempt.error is not None:
        return attempt.error.message
    return "; ".join(f"{one.code}: {one.message}" for one in attempt.blockers)


def _line(attempt: Attempt) -> str:
    stood, why = standstill(attempt), _why(attempt)
    told = f", stood still for {span(stood.downtime_ms)}" if stood else ""
    return f"{attempt.name} {attempt.outcome or 'open'}{told}{f': {why}' if why else ''}"
