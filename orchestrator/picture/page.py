"""One attempt as one page of HTML: it needs no network and no script, and says in words whatever it draws.

It is made of the attempt alone, so that the same attempt always gives the same page.
"""

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element

from orchestrator.attempt import Attempt, Event, Notice, Outcome
from orchestrator.limits import limits_of
from orchestrator.picture.charts import (
    drawn,
    held_drawing,
    rates_drawing,
    remaining_drawing,
    tail_drawing,
    throttle_drawing,
)
from orchestrator.picture.markup import node, page_text
from orchestrator.picture.standstill import Bounds, drawn_standstill
from orchestrator.picture.style import STYLE
from orchestrator.picture.tables import (
    events_table,
    facts_table,
    prediction_table,
    rounds_table,
    standstill_table,
)
from orchestrator.picture.timeline import Timeline, timeline
from orchestrator.render.quantities import size, span
from orchestrator.result import migration_document
from vm_migration.api.v1 import source_pb2
from vm_migration.daemon.host_facts import VERSION

GENERATOR: Final = "viaduct report"
_SILENT: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""A page that loads nothing, whatever it holds."""


def page(attempt: Attempt, events: Sequence[Event]) -> str:
    """Return the page of an attempt, ended or not."""
    report = attempt.report or source_pb2.AttemptReport()
    line = timeline(report)
    title = f"{attempt.name}: {_way(attempt)}, {_outcome(attempt)}"
    inside = [
        *_head(attempt, line),
        *_notices(attempt),
        *([] if attempt.asked.update else _rounds(attempt, line)),
        *_standstill(attempt, report),
        *_prediction(attempt, line),
        _section("Asked and done", facts_table(attempt)),
        *([_section("Transitions", events_table(events))] if events else []),
        *([_section("Rounds", rounds_table(report, line))] if line.stretches else []),
        node("footer", f"Made by viaduct report, version {VERSION}, of what was known of attempt {attempt.attempt}."),
    ]
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=_SILENT),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="generator", content=GENERATOR),
        node("title", title),
        node("style", STYLE),
    )
    return page_text(node("html", head, node("body", node("main", *inside)), lang="en"))


def _outcome(attempt: Attempt) -> str:
    return attempt.outcome.value if attempt.outcome else f"open in {attempt.phase}"


def _way(attempt: Attempt) -> str:
    if attempt.asked.update:
        return f"on {attempt.source}, mode {attempt.asked.update}"
    return f"{attempt.source} to {attempt.destination}"


def _head(attempt: Attempt, line: Timeline) -> list[Element]:
    style = attempt.outcome.value if attempt.outcome else "open"
    way = node(
        "p",
        f"{_way(attempt)}: ",
        node("span", _outcome(attempt), class_=f"outcome {style}"),
        f". {attempt.reason}" if attempt.reason else "",
    )
    what = "Update" if attempt.asked.update else "Migration"
    return [node("h1", f"{what} of {attempt.name}"), way, _figures(attempt, line)]


def _figures(attempt: Attempt, line: Timeline) -> Element:
    tiles = _tiles_of_update(attempt) if attempt.asked.update else _tiles(attempt, line)
    cells = [node("div", node("dt", name), node("dd", value, node("small", more))) for name, value, more in tiles]
    return node("dl", *cells, class_="figures")


def _tiles_of_update(attempt: Attempt) -> list[tuple[str, str, str]]:
    document = migration_document(attempt)
    tiles = [("total", span(document.total_ms), "")]
    if document.downtime_ms is not None:
        tiles.append(("downtime", span(document.downtime_ms), "by one clock"))
    if document.ram_bytes:
        tiles.append(("memory", size(document.ram_bytes), "none of it copied"))
    return tiles


def _tiles(attempt: Attempt, line: Timeline) -> list[tuple[str, str, str]]:
    document, limits = migration_document(attempt), limits_of(attempt)
    tiles = [("total", span(document.total_ms), _preparing(attempt))]
    if document.downtime_ms is not None:
        limit = f"of at most {span(limits.downtime_ms)}"
        tiles.append(("downtime", span(document.downtime_ms), limit))
    elif attempt.report is not None and attempt.report.expected_downtime_ms and not attempt.ended:
        limit = f"of at most {span(limits.downtime_ms)}"
        tiles.append(("expected downtime", span(attempt.report.expected_downtime_ms), limit))
    if document.ram_bytes:
        tiles.append(("memory", size(document.ram_bytes), f"{size(document.wire_bytes)} on the wire"))
    if line.closed:
        tiles.append(("rounds", str(line.closed), f"in {span(line.length_ms)}"))
    if attempt.outcome == Outcome.COMPLETED:
        differ = f"{document.pages_mismatched} differ"
        tiles.append(("pages verified", f"{document.pages_verified}", differ))
    return tiles


def _preparing(attempt: Attempt) -> str:
    return f"{span(attempt.prepare_ms)} to prepare" if attempt.prepare_ms else ""


def _notices(attempt: Attempt) -> list[Element]:
    found: list[Element] = []
    if attempt.error is not None:
        fault = attempt.error
        words = [node("p", node("strong", f"{fault.code}: "), fault.message)]
        words += [node("p", f"To do: {fault.hint}")] if fault.hint else []
        found.append(node("div", node("h2", "Error"), *words, class_="notice fault"))
    for heading, notices in (("Blockers", attempt.blockers), ("Warnings", attempt.warnings)):
        if notices:
            found.append(node("div", node("h2", heading), *(_notice(one) for one in notices), class_="notice"))
    return found


def _notice(one: Notice) -> Element:
    device = f" ({one.device})" if one.device else ""
    return node("p", node("strong", f"{one.code}{device}: "), one.message)


def _rounds(attempt: Attempt, line: Timeline) -> list[Element]:
    if not line.stretches:
        return [_section("Rounds on the time axis", node("p", "No round had ended.", class_="soft"))]
    tail, limit = tail_drawing(line), limits_of(attempt).bandwidth_bytes_per_s
    drawings = [
        remaining_drawing(line),
        *([] if tail is None else [tail]),
        rates_drawing(line, float(limit), tuned=limit != attempt.policy.max_bandwidth_bytes_per_s),
    ]
    if line.throttled:
        drawings.append(throttle_drawing(line))
    if line.devices_held:
        drawings.append(held_drawing(line))
    return [
        _section(one.title, node("p", _under(one.description, line), class_="soft"), drawn(one, line))
        for one in drawings
    ]


def _under(description: str, line: Timeline) -> str:
    if line.whole:
        return description
    return f"{description} Of {line.closed} rounds, {len(line.stretches)} are shown, evenly spaced."


def _standstill(attempt: Attempt, report: source_pb2.AttemptReport) -> list[Element]:
    if attempt.outcome != Outcome.COMPLETED or not report.HasField("downtime"):
        return []
    if mode := attempt.asked.update:
        drawn_bar, table = drawn_standstill(report.downtime, Bounds(0.0), mode), standstill_table(report.downtime, mode)
        return [_section("Downtime", drawn_bar, table)]
    expected = attempt.expected
    bounds = Bounds(float(limits_of(attempt).downtime_ms))
    if expected is not None:
        bounds = Bounds(bounds.limit_ms, expected.downtime_ms, expected.downtime_low_ms, expected.downtime_high_ms)
    return [_section("Downtime", drawn_standstill(report.downtime, bounds), standstill_table(report.downtime))]


def _prediction(attempt: Attempt, line: Timeline) -> list[Element]:
    table = prediction_table(attempt, line.closed)
    return [] if table is None else [_section("Prediction and outcome", table)]


def _section(heading: str, *inside: Element) -> Element:
    return node("section", node("h2", heading), *inside)
