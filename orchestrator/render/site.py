"""The whole site: one screen that is drawn again on a terminal, and lines of what changed elsewhere."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.attempt import Attempt, Phase
from orchestrator.host_standing import HostStanding
from orchestrator.limits import limits_of
from orchestrator.render.progress import PlainLines, plain_line
from orchestrator.render.quantities import rate, size, span
from orchestrator.result import percent_of, timestamp
from orchestrator.site_view import SiteView, evacuation_words, news

_REST: Final = 8
"""Lines of a screen that are headings and gaps."""
_NAME: Final = 12
"""Letters of a name that are shown on any screen."""
_PHASE: Final = 2
"""The column of the phase."""
_FEW: Final = 3
"""Rows that each table has at least, where there are so many."""


class SiteLines:
    """Decides what of many views is worth a line: what changed of hosts, new phases, and now and then how far."""

    def __init__(self) -> None:
        self._before: SiteView | None = None
        self._lines: dict[str, PlainLines] = {}

    def next(self, view: SiteView, now: float) -> Iterator[str]:
        """Yield the lines of a view; `now` in seconds of any clock that does not go back."""
        yield from news(self._before, view)
        for attempt in (*view.in_flight, *view.waiting):
            line = self._lines.setdefault(attempt.attempt, PlainLines()).next(attempt, now)
            if line is not None:
                yield line
        for attempt in view.ended:
            yield plain_line(attempt)
        still = {one.attempt for one in view.attempts}
        self._lines = {attempt: lines for attempt, lines in self._lines.items() if attempt in still}
        self._before = view


class SitePicture:
    """The site for a terminal, as high as that is."""

    def __init__(self, view: SiteView, ended: Sequence[Attempt] = ()) -> None:
        """Show a view; `ended` are the last attempts that ended, the newest in front."""
        self.view = view
        self.ended = ended

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield site_picture(self.view, self.ended, options.height or console.height)


def site_picture(view: SiteView, ended: Sequence[Attempt], height: int) -> RenderableType:
    """Return the site in so many lines: what is in flight first, as nothing else changes so fast."""
    moving, waiting, hosts = view.in_flight, view.waiting, sorted(view.hosts, key=_silent_first)
    told = [evacuation_words(one) for one in view.evacuations]
    left = max(0, height - _REST - bool(view.unheard) - min(len(told), _FEW + 1))
    rows_moving, left = _share(len(moving), left, _FEW * 3)
    rows_hosts, left = _share(len(hosts), left, _FEW * 2)
    rows_waiting, left = _share(len(waiting), left, _FEW)
    rows_ended, _ = _share(len(ended), left, 0)
    counts = f"{len(hosts)} hosts, {len(moving)} in flight, {len(waiting)} waiting"
    parts: list[RenderableType] = [Text.assemble((counts, "bold"), f"  {timestamp(view.at)}")]
    if view.unheard:
        parts.append(Text(view.unheard, style="yellow"))
    parts += _evacuations(told)
    parts += _section("in flight", _flights(moving[:rows_moving]), len(moving) - rows_moving)
    parts += _section("waiting", _queue(waiting[:rows_waiting]), len(waiting) - rows_waiting)
    parts += _section("hosts", _hosts(hosts[:rows_hosts], view.maintenance), len(hosts) - rows_hosts)
    parts += [Text(plain_line(one), style="dim", overflow="ellipsis", no_wrap=True) for one in ended[:rows_ended]]
    return Group(*parts)


def _share(wanted: int, left: int, kept_for_others: int) -> tuple[int, int]:
    """Return how many rows a table gets, and what is left then; others have some kept, but not what is not there."""
    given = min(wanted, max(min(_FEW, left), left - kept_for_others))
    return given, left - given


def _section(title: str, table: Table, more: int) -> Iterator[RenderableType]:
    if table.row_count or more:
        table.columns[0].header = title
        yield table
    if more:
        yield Text(f"and {more} more", style="dim")


def _evacuations(lines: Sequence[str]) -> Iterator[RenderableType]:
    yield from (Text(line, overflow="ellipsis", no_wrap=True) for line in lines[:_FEW])
    if len(lines) > _FEW:
        yield Text(f"and {len(lines) - _FEW} more", style="dim")


def _flights(attempts: Sequence[Attempt]) -> Table:
    table = _table("", "way", "phase", "done", "to go", "wire", "dirtied", "downtime")
    table.columns[_PHASE].min_width = max(map(len, Phase))  # a cut rate is still a rate, a cut phase is none
    for one in attempts:
        report = one.report
        last = report.rounds[-1] if report is not None and report.rounds else None
        table.add_row(
            one.name,
            _way(one),
            Text(one.phase.value, style="cyan"),
            f"{percent_of(one)} %",
            "" if report is None else size(report.remaining_bytes),
            "" if last is None else rate(last.wire_bytes_per_s),
            "" if last is None else rate(last.dirty_bytes_per_s),
            _downtime(one),
        )
    return table


def _way(one: Attempt) -> str:
    return f"on {one.source}" if one.asked.update else f"{one.source} > {one.destination}"


def _downtime(one: Attempt) -> Text:
    expected, limit = one.report.expected_downtime_ms if one.report is not None else 0.0, limits_of(one).downtime_ms
    if not expected:
        return Text("")
    return Text(span(expected), style="yellow" if expected > limit else "green")


def _queue(attempts: Sequence[Attempt]) -> Table:
    table = _table("", "way", "priority", "for")
    for one in attempts:
        table.add_row(one.name, _way(one), str(one.priority), escape(one.reason))
    return table


def _hosts(hosts: Sequence[HostStanding], maintenance: Collection[str]) -> Table:
    table = _table("", "machines", "out", "in", "memory free")
    for one in hosts:
        kept = "in maintenance, " if one.host in maintenance else ""
        if one.obstacles:
            words = f"{kept}{one.obstacles[0].message}"
            table.add_row(Text(one.host, style="red"), "", "", "", Text(words, style="red"))
        else:
            free = "" if one.memory_free is None else size(one.memory_free)
            whole = "" if one.memory_budget is None else f" of {size(one.memory_budget)}"
            counts = (one.machines, one.attempts_out, one.attempts_in)
            table.add_row(one.host, *("?" if each is None else str(each) for each in counts), f"{kept}{free}{whole}")
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        width = _NAME if number == 0 else None
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=width)
    return table


def _silent_first(one: HostStanding) -> tuple[bool, int, str]:
    busy = (one.attempts_out or 0) + (one.attempts_in or 0)
    return not one.obstacles, -busy, one.host
