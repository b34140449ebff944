"""The figures behind the drawings, and the rest of what is known of an attempt, as tables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final
from xml.etree.ElementTree import Element

from orchestrator.attempt import Attempt, Event, Outcome
from orchestrator.limits import limits_of
from orchestrator.picture.markup import node
from orchestrator.picture.standstill import parts_of
from orchestrator.picture.timeline import Timeline
from orchestrator.render.quantities import rate, size, span
from orchestrator.render.travelling import bandwidth_limit, downtime_limit, travelled
from orchestrator.result import has_range, timestamp
from vm_migration.api.v1 import source_pb2, types_pb2

Cell = str | Element
_WAYS: Final[tuple[tuple[str, Callable[[types_pb2.Round], int]], ...]] = (
    ("compressed", lambda one: one.compressed_pages),
    ("as deltas", lambda one: one.delta_pages),
    ("as references", lambda one: one.reference_pages),
    ("held back", lambda one: one.held_back_pages),
)
"""How pages travelled, where they did not go as they are: columns that a table has only where there is one."""


def rounds_table(report: source_pb2.AttemptReport, line: Timeline) -> Element:
    """Return every round that is told."""
    headings = ["round", "began", "took", "dirty", "sent", "zero", "on the wire", "wire", "dirtied"]
    headings += ["by vCPUs", "by DMA"] if line.apart else []
    headings += ["throttled"] if line.throttled else []
    headings += ["devices held"] if line.devices_held else []
    travelled = [(words, count) for words, count in _WAYS if any(count(one) for one in report.rounds)]
    headings += [words for words, _ in travelled]
    rows: list[list[Cell]] = []
    for one, placed in zip(report.rounds, line.stretches, strict=True):
        row: list[Cell] = [str(one.round), span(placed.begins_ms), span(one.ms), size(placed.dirty_bytes)]
        row += [f"{one.sent_pages}", f"{one.zero_pages}", size(one.wire_bytes), rate(one.wire_bytes_per_s)]
        row += [rate(one.dirty_bytes_per_s)]
        row += [rate(placed.cpu_rate), rate(placed.dma_rate)] if line.apart else []
        row += [f"{placed.throttle_percent} %"] if line.throttled else []
        row += [f"{placed.device_throttle_percent} %"] if line.devices_held else []
        row += [str(count(one)) for _, count in travelled]
        rows.append(row)
    caption = "Dirty: left to send when the round began. Sent and zero: pages of 4 KiB."
    return _table(caption, headings, rows)


def standstill_table(downtime: types_pb2.Downtime, mode: str = "") -> Element:
    """Return the parts of the standstill, numbered as in the bar."""
    rows: list[list[Cell]] = []
    for number, part in enumerate(parts_of(downtime, mode), 1):
        share = f"{100 * part.ms / downtime.downtime_ms:.0f} %" if downtime.downtime_ms else ""
        rows.append([f"{number} {part.name}", span(part.ms), share, part.meaning])
    exact = "Exact: by one clock." if mode else "Exact: both hosts share one clock."
    bound = f"At most: {span(downtime.uncertainty_ms)} of the last part may be the way of a message."
    return _table(exact if downtime.shared_clock else bound, ["part", "took", "share", "what"], rows, words=1)


def prediction_table(attempt: Attempt, closed: int) -> Element | None:
    """Return what was expected beside what came, where something was expected."""
    expected = attempt.expected
    if expected is None:
        return None
    report = attempt.report
    came = report if attempt.outcome == Outcome.COMPLETED else None
    downtime = came.downtime.downtime_ms if came is not None and came.HasField("downtime") else None
    rows: list[list[Cell]] = [
        _prediction("total", expected.total_ms, expected.total_low_ms, expected.total_high_ms, came and came.total_ms),
        _prediction("prepare", expected.prepare_ms, 0.0, 0.0, attempt.prepare_ms if came is not None else None),
        _prediction("downtime", expected.downtime_ms, expected.downtime_low_ms, expected.downtime_high_ms, downtime),
        ["rounds", str(expected.rounds), "", str(closed) if came is not None else "", ""],
    ]
    shown = [at for at in range(5) if any(row[at] for row in rows)]
    headings = ["what", "expected", "range", "came", "off by"]
    return _table(
        _rests_on(attempt, expected), [headings[at] for at in shown], [[row[at] for at in shown] for row in rows]
    )


def _rests_on(attempt: Attempt, expected: types_pb2.Expected) -> str:
    """Return what a prediction rests on, where its source tells that, and whether it is of other limits."""
    words = ""
    if has_range(expected):
        link, dirtied = rate(expected.link_bytes_per_s), rate(expected.dirty_bytes_per_s)
        words = f"The range is where nine of ten are to lie. It rests on {link} on the wire, and on {dirtied} dirtied."
        words += "" if expected.converges else " It was expected that it may never fit the limit."
    return f"{words} The limits were tuned since.".strip() if limits_of(attempt).tuned else words


def facts_table(attempt: Attempt) -> Element:
    """Return what was asked for, and what came of it."""
    asked, report = attempt.asked, attempt.report
    updates: list[list[Cell]] = [["host", attempt.source], ["mode", asked.update]]
    moves: list[list[Cell]] = [["way", f"{attempt.source} to {attempt.destination}"]]
    rows: list[list[Cell]] = [
        ["machine", f"{attempt.name}, {attempt.machine}"],
        *(updates if asked.update else moves),
        ["attempt", f"{attempt.attempt}, epoch {attempt.epoch}"],
        ["asked for", timestamp(attempt.created_at)],
        ["as of", timestamp(attempt.updated_at)],
        *([] if asked.update else _terms(attempt)),
    ]
    if report is not None:
        rows += _of_guest(report) if asked.update else _came(report)
    return _table("", ["", ""], rows, words=1)


def _terms(attempt: Attempt) -> list[list[Cell]]:
    policy = attempt.policy
    return [
        ["downtime limit", downtime_limit(attempt)],
        ["bandwidth limit", bandwidth_limit(attempt)],
        ["timeout", f"{span(policy.timeout_ms)}, then {policy.on_timeout}"],
        ["profile", policy.profile],
        ["transport", f"{policy.transport}, streams {policy.streams}, compression {policy.compression}"],
        ["verification", policy.verify],
    ]


def events_table(events: Iterable[Event]) -> Element:
    """Return every transition in order."""
    rows: list[list[Cell]] = [
        [str(one.sequence), timestamp(one.at), one.phase.value, one.outcome.value if one.outcome else "", one.reason]
        for one in events
    ]
    return _table("", ["", "at", "phase", "outcome", "reason"], rows, words=1)


def _came(report: source_pb2.AttemptReport) -> list[list[Cell]]:
    verified = f"{report.pages_verified} pages, {report.pages_mismatched} differ, by {report.verified_by or 'none'}"
    rows: list[list[Cell]] = [["memory", f"{size(report.ram_bytes)}, {size(report.wire_bytes)} on the wire"]]
    if words := travelled(report):
        rows.append(["travelled", words])
    rows.append(["devices' state", size(report.device_bytes)])
    if report.pages_verified or report.pages_mismatched:
        rows.append(["verified", verified])
    return rows + _of_guest(report)


def _of_guest(report: source_pb2.AttemptReport) -> list[list[Cell]]:
    if not report.HasField("guest"):
        return []
    guest = report.guest
    dirties = f"{rate(guest.dirty_bytes_per_s)} by vCPUs, {rate(guest.dma_bytes_per_s)} by DMA"
    return [["guest", f"{guest.jobs_done} jobs done, {guest.errors} errors"], ["guest dirties", dirties]]


def _prediction(what: str, expected: float, low: float, high: float, came: float | None) -> list[Cell]:
    reach = f"{span(low)} to {span(high)}" if high else ""
    if not came:
        return [what, span(expected), reach, "", ""]
    off = f"{100 * (came - expected) / expected:+.0f} %" if expected else ""
    return [what, span(expected), reach, span(came), off]


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Cell]], *, words: int = 0) -> Element:
    """Return a table whose first cells are headings of their rows; cells from `words` on are text, the others numbers.

    With `words` 0, all cells but the first are numbers.
    """
    head = node("tr", *(node("th", one, scope="col", class_=_style(at, words)) for at, one in enumerate(headings)))
    body = node("tbody")
    for row in rows:
        cells = [node("th", row[0], scope="row")]
        cells += [node("td", one, class_=_style(at, words)) for at, one in enumerate(row[1:], 1)]
        body.append(node("tr", *cells))
    inside = [node("caption", caption)] if caption else []
    inside += [node("thead", head)] if any(headings) else []
    return node("div", node("table", *inside, body), class_="scroll")


def _style(at: int, words: int) -> str:
    return "words" if not at or (words and at >= words) else "number-cell"
