"""A migration while it runs, live on a terminal and silent elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.attempt import Attempt, Phase
from orchestrator.render.quantities import rate, size, span
from orchestrator.result import percent_of

_WORDS = {
    Phase.QUEUED: "waits for its turn",
    Phase.PREFLIGHT: "asks both hosts",
    Phase.BEGINNING: "opens the attempt",
    Phase.PREPARING: "makes the destination's memory ready",
    Phase.BEGUN: "tracks what the guest writes",
    Phase.PRE_COPY: "copies memory while the guest runs",
    Phase.STOPPING: "stops the guest and sends the last pages",
    Phase.VERIFYING: "compares every page",
    Phase.RELEASING: "releases the machine: no way back from here",
    Phase.HANDING_OVER: "hands over",
}


class LiveProgress:
    """Shows the last attempt that it was given, while the context is entered."""

    def __init__(self, console: Console) -> None:
        """Use a console; one that is no terminal shows nothing."""
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, attempt: Attempt) -> None:
        """Show an attempt as it stands."""
        if self._live is not None:
            self._live.update(picture(attempt))

    def say(self, words: str) -> None:
        """Show what is being done before there is an attempt."""
        if self._live is not None:
            self._live.update(Text(words, style="dim"))


def picture(attempt: Attempt) -> RenderableType:
    """Return an attempt for a terminal: where it stands, how far, how fast."""
    percent = percent_of(attempt)
    head = Text.assemble(
        (attempt.name, "bold"),
        f"  {attempt.source} -> {attempt.destination}  ",
        (attempt.phase.value, "cyan"),
        f"  {_WORDS.get(attempt.phase, '')}",
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=100, completed=percent, width=40), f"{percent:3d} %")
    parts: list[RenderableType] = [head, bar]
    report = attempt.report
    if report is not None and report.rounds:
        last = report.rounds[-1]
        facts = (
            f"round {last.round}",
            f"{size(report.remaining_bytes)} to go",
            f"wire {rate(last.wire_bytes_per_s)}",
            f"dirtied {rate(last.dirty_bytes_per_s)}",
            f"expected downtime {span(report.expected_downtime_ms)}",
        )
        parts.append(Text("  ".join(facts), style="dim"))
    if attempt.reason:
        parts.append(Text(attempt.reason, style="yellow"))
    return Group(*parts)
