"""A migration while it runs: drawn live on a terminal, told in plain lines or not at all elsewhere."""

import time
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.attempt import Attempt, Phase
from orchestrator.limits import limits_of
from orchestrator.render.forecast import in_all
from orchestrator.render.live_region import LiveRegion
from orchestrator.render.quantities import rate, size, span
from orchestrator.render.sparkline import BLOCKS, PLAIN, sparkline
from orchestrator.result import percent_of, rounds_closed
from vm_migration.api.v1 import source_pb2, types_pb2

_PAGE_BYTES: Final = 4096
_BARS: Final = 22
_LINE_EVERY: Final = 5.0
"""Seconds between two plain lines of one phase."""
_WORDS = {
    Phase.QUEUED: "waits for its turn",
    Phase.PREFLIGHT: "asks what speaks against it",
    Phase.BEGINNING: "opens the attempt",
    Phase.PREPARING: "makes the destination's memory ready",
    Phase.BEGUN: "tracks what the guest writes",
    Phase.STARTING: "starts another process beside the machine's own",
    Phase.PRE_COPY: "copies memory while the guest runs",
    Phase.STOPPING: "stops the guest and sends the last pages",
    Phase.SWITCHING: "has it take over; devices go on",
    Phase.VERIFYING: "compares every page",
    Phase.RELEASING: "releases the machine: no way back from here",
    Phase.RESUMING: "has it run the machine",
    Phase.HANDING_OVER: "hands over",
}


class LiveProgress(LiveRegion):
    """Shows the last attempt that it was given, while the context is entered."""

    def __init__(self, console: Console, *, lines: bool = False) -> None:
        """Use a console; one that cannot be drawn on gets a line now and then where `lines` says so, else nothing."""
        draws = console.is_terminal and not console.is_dumb_terminal
        super().__init__(console, draws=draws)
        self._lines = PlainLines() if lines and not draws else None
        self._console = console

    def update(self, attempt: Attempt) -> None:
        """Show an attempt as it stands."""
        if self.draws:
            self.draw(Picture(attempt))
        elif self._lines is not None:
            line = self._lines.next(attempt, time.monotonic())
            if line is not None:
                self._console.print(line, soft_wrap=True, markup=False)

    def say(self, words: str) -> None:
        """Show what is being done before there is an attempt."""
        if self.draws:
            self.draw(Text(words, style="dim"))


class PlainLines:
    """Decides which of many reports are worth a line: each new phase, and within one at most one in five seconds."""

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._said = 0.0

    def next(self, attempt: Attempt, now: float) -> str | None:
        """Return what to print at a time in seconds, if anything."""
        if attempt.phase == self._phase and now - self._said < _LINE_EVERY:
            return None
        self._phase, self._said = attempt.phase, now
        return plain_line(attempt)


def way(attempt: Attempt) -> str:
    """Return where an attempt goes, for people."""
    return f"on {attempt.source}" if attempt.asked.update else f"{attempt.source} -> {attempt.destination}"


def plain_line(attempt: Attempt) -> str:
    """Return an attempt as one line without colours."""
    words = [f"{attempt.name} {way(attempt)}: {attempt.phase}"]
    report = attempt.report
    if report is not None and report.rounds and not attempt.ended:
        last = report.rounds[-1]
        words += [
            _rounds(report),
            f"{size(report.remaining_bytes)} to go",
            f"wire {rate(last.wire_bytes_per_s)}",
            f"dirtied {rate(last.dirty_bytes_per_s)}",
            f"expected downtime {span(report.expected_downtime_ms)}, limit {span(limits_of(attempt).downtime_ms)}",
        ]
    if attempt.reason:
        words.append(attempt.reason)
    return ", ".join(words)


class Picture:
    """An attempt for a terminal: where it stands, how far, how fast, and what its guest's standstill would be."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield picture(self.attempt, PLAIN if options.ascii_only else BLOCKS)


def picture(attempt: Attempt, bars: str = BLOCKS) -> RenderableType:
    """Return an attempt for a terminal, with the characters that its bars are made of."""
    percent = percent_of(attempt)
    head = Text.assemble(
        (attempt.name, "bold"),
        f"  {way(attempt)}  ",
        (attempt.phase.value, "cyan"),
        f"  {_WORDS.get(attempt.phase, '')}",
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=100, completed=percent, width=40), f"{percent:3d} %", _so_far(attempt))
    parts: list[RenderableType] = [head, bar]
    if attempt.report is not None and (attempt.report.rounds or attempt.report.remaining_bytes):
        parts.append(_figures(attempt, attempt.report, bars))
    if attempt.reason:
        parts.append(Text(attempt.reason, style="yellow"))
    return Group(*parts)


def _so_far(attempt: Attempt) -> str:
    """Return rounds and time since the order, as of the last word of the source; before the first there is none."""
    if attempt.report is None:
        return ""
    rounds = f"{_rounds(attempt.report)}, " if attempt.report.rounds else ""
    return f"{rounds}{span(max(0.0, attempt.updated_at - attempt.created_at) * 1000)}"


def _rounds(report: source_pb2.AttemptReport) -> str:
    closed = rounds_closed(report)
    return f"{closed} round{'' if closed == 1 else 's'}"


def _figures(attempt: Attempt, report: source_pb2.AttemptReport, bars: str) -> Table:
    """Return what is known by numbers: in the first round, only what is left of it."""
    rounds = report.rounds[-_BARS:]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    left = [float(one.dirty_pages * _PAGE_BYTES) for one in rounds]
    still = float(report.remaining_bytes)
    table.add_row("to go", sparkline([*left, still], _BARS, bars) if left else "", size(still))
    if rounds:
        wire, dirtied = [one.wire_bytes_per_s for one in rounds], [one.dirty_bytes_per_s for one in rounds]
        full = max(*wire, *dirtied)  # both on one scale, as the one races the other
        table.add_row("wire", sparkline(wire, _BARS, bars, full=full), f"{rate(wire[-1])}{_pages(rounds[-1])}")
        told = f"{rate(dirtied[-1])}{_apart(rounds[-1])}"
        table.add_row("dirtied", sparkline(dirtied, _BARS, bars, full=full), told)
    if report.device_bytes or report.device_left_bytes:
        left_words = f"{size(report.device_bytes)} moved, {size(report.device_left_bytes)} left for the stop"
        table.add_row("devices", "", left_words)
    if rounds and rounds[-1].throttle_percent:
        table.add_row("throttled", "", f"{rounds[-1].throttle_percent} % of the vCPUs' time")
    if rounds and rounds[-1].device_throttle_percent:
        table.add_row("held", "", f"{rounds[-1].device_throttle_percent} % of the devices' time")
    if attempt.expected is not None and not attempt.ended:
        table.add_row("expected", "", f"{in_all(attempt.expected)} in all")
    if report.expected_downtime_ms and not attempt.ended:
        table.add_row("downtime", "", _downtime(report.expected_downtime_ms, limits_of(attempt).downtime_ms))
    return table


def _apart(one: types_pb2.Round) -> str:
    if one.ms <= 0 or not (one.cpu_dirtied_pages or one.dma_dirtied_pages):
        return ""
    per_page = _PAGE_BYTES * 1000 / one.ms
    return f": CPU {rate(one.cpu_dirtied_pages * per_page)}, DMA {rate(one.dma_dirtied_pages * per_page)}"


def _pages(one: types_pb2.Round) -> str:
    """Return what the pages were that the wire carried as less."""
    if one.ms <= 0 or not (one.compressed_pages or one.delta_pages or one.reference_pages):
        return ""
    return f": pages {rate(one.sent_pages * _PAGE_BYTES * 1000 / one.ms)}"


def _downtime(expected_ms: float, limit_ms: float) -> str:
    word = "within" if expected_ms <= limit_ms else "over"
    return f"{span(expected_ms)} expected, {word} the limit of {span(limit_ms)}"
