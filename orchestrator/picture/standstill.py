"""The guest's standstill as one bar: its parts in the order in which they come, beside what was allowed."""

from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from orchestrator.picture.axis import Axis, time_ticks
from orchestrator.picture.charts import WIDTH
from orchestrator.picture.markup import node, place
from orchestrator.render.quantities import span
from vm_migration.api.v1 import types_pb2

_LEFT: Final = 32.0
_RIGHT: Final = WIDTH - 70.0
_TOP: Final = 50.0
_THICK: Final = 40.0
_HEIGHT: Final = 134.0
_NUMBER_WIDTH: Final = 14.0
_MARKS: Final = 8
_GAP: Final = 8.0
_TEXT_WIDTH: Final = 64.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the standstill; `style` names its colour."""

    name: str
    ms: float
    style: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the standstill is held against, in milliseconds; 0 where it is not known."""

    limit_ms: float
    expected_ms: float = 0.0
    low_ms: float = 0.0
    high_ms: float = 0.0


def parts_of(downtime: types_pb2.Downtime, mode: str = "") -> tuple[Part, ...]:
    """Return the parts, which add up to the downtime: six of a migration, or those of an update in a mode."""
    if mode:
        return _parts_of_update(downtime, mode)
    return (
        Part("pause", downtime.pause_ms, "part-1", "vCPUs, then devices, come to a halt"),
        Part("last round", downtime.last_round_ms, "part-2", "the last dirty pages are sent and applied"),
        Part("device state", downtime.device_state_ms, "part-3", "the devices' state is read, sent and loaded"),
        Part("verify", downtime.verify_ms, "part-4", "both ends compare the digests of every page"),
        Part("handoff", downtime.handoff_ms, "part-5", "the journals change the owner"),
        Part("resume", downtime.resume_ms, "part-6", "the guest runs at its destination and says so"),
    )


def _parts_of_update(downtime: types_pb2.Downtime, mode: str) -> tuple[Part, ...]:
    if mode == "exec":
        return (
            Part("program", downtime.resume_ms, "part-6", "the process becomes the other program, and runs the guest"),
        )
    if mode == "reboot":
        return (
            Part("leaving", downtime.device_state_ms, "part-3", "where the guest stands is put into a file"),
            Part("ready", downtime.verify_ms, "part-4", "the file is read once, and the journal names it"),
            Part(
                "release",
                downtime.handoff_ms,
                "part-5",
                "both processes end, new ones start, and the journal names them",
            ),
            Part("resume", downtime.resume_ms, "part-6", "the guest wakes in the new processes"),
        )
    return (
        Part("handing over", downtime.device_state_ms, "part-3", "vCPUs halt, and the new process takes over"),
        Part("ready", downtime.verify_ms, "part-4", "it can be commanded, and the journal names it"),
        Part(
            "release", downtime.handoff_ms, "part-5", "the old process is fenced, and the journal changes the process"
        ),
        Part("resume", downtime.resume_ms, "part-6", "the guest runs in the new process, which says so"),
    )


def drawn_standstill(downtime: types_pb2.Downtime, bounds: Bounds, mode: str = "") -> Element:
    """Return the bar as an SVG element, with its title and description inside, in a box that scrolls."""
    held = max(downtime.downtime_ms, bounds.limit_ms)
    longest = max(held, min(bounds.expected_ms, 2 * held))  # what was expected may lie beyond it
    across = Axis(longest, _LEFT, _RIGHT)
    parts = parts_of(downtime, mode)
    told = ", ".join(f"{part.name} {span(part.ms)}" for part in parts)
    allowed = f", allowed were {span(bounds.limit_ms)}" if bounds.limit_ms else ""
    described = f"The guest stood still for {span(downtime.downtime_ms)}{allowed}: {told}."
    picture = node(
        "svg",
        node("title", "Parts of the downtime", id="standstill-title"),
        node("desc", described, id="standstill-words"),
        *_bar(parts, across),
        node("text", span(downtime.downtime_ms), x=_beside(downtime, bounds, across), y=_TOP + 25, class_="value"),
        *_expected(bounds, across),
        *_limit(bounds, across),
        *_marks(longest, across),
        viewBox=f"0 0 {place(WIDTH)} {place(_HEIGHT)}",
        role="img",
        aria_labelledby="standstill-title standstill-words",
    )
    return node("div", picture, class_="scroll")


def _bar(parts: tuple[Part, ...], across: Axis) -> list[Element]:
    found: list[Element] = []
    begins = 0.0
    for number, part in enumerate(parts, 1):
        x, ends = across.at(begins), across.at(begins + part.ms)
        hover = node("title", f"{part.name}: {span(part.ms)}")
        found.append(node("rect", hover, x=x, y=_TOP, width=ends - x, height=_THICK, class_=f"part {part.style}"))
        if ends - x >= _NUMBER_WIDTH:
            found.append(node("text", str(number), x=(x + ends) / 2, y=_TOP + 25, class_="inside"))
        begins += part.ms
    return found


def _beside(downtime: types_pb2.Downtime, bounds: Bounds, across: Axis) -> float:
    """Return where the sum is written: after the bar, and not on the line of the limit."""
    ends, limit = across.at(downtime.downtime_ms), across.at(bounds.limit_ms)
    return _GAP + (limit if ends <= limit < ends + _TEXT_WIDTH else ends)


def _expected(bounds: Bounds, across: Axis) -> list[Element]:
    if not bounds.expected_ms:
        return []
    y, x = _TOP - 14, across.at(bounds.expected_ms)
    low, high = across.at(bounds.low_ms or bounds.expected_ms), across.at(bounds.high_ms or bounds.expected_ms)
    words = f"expected {span(bounds.expected_ms)}"
    words += f", {span(bounds.low_ms)} to {span(bounds.high_ms)} in nine of ten" if bounds.high_ms else ""
    late = x > (_LEFT + _RIGHT) / 2
    beyond = (
        node("text", "\u25b8", x=high + 6, y=y + 5, class_="beyond")
        if max(bounds.high_ms, bounds.expected_ms) > across.high
        else None
    )
    return [
        *([] if beyond is None else [beyond]),
        node("line", x1=low, y1=y, x2=high, y2=y, class_="range"),
        node("circle", node("title", words), cx=x, cy=y, r=5, class_="expected"),
        node("text", words, x=x + 6 if late else x - 6, y=y - 11, class_="late" if late else "legend"),
    ]


def _limit(bounds: Bounds, across: Axis) -> list[Element]:
    if not bounds.limit_ms:
        return []
    x = across.at(bounds.limit_ms)
    return [
        node("line", x1=x, y1=_TOP - 6, x2=x, y2=_TOP + _THICK + 6, class_="limit"),
        node("text", f"limit {span(bounds.limit_ms)}", x=x, y=_HEIGHT - 4, class_="mark limit-text"),
    ]


def _marks(longest: float, across: Axis) -> list[Element]:
    found: list[Element] = []
    for mark in time_ticks(longest, _MARKS):
        x = across.at(mark)
        found.append(node("line", x1=x, y1=_TOP + _THICK, x2=x, y2=_TOP + _THICK + 5, class_="tick"))
        found.append(node("text", span(mark).replace(".0 ", " "), x=x, y=_TOP + _THICK + 19, class_="mark"))
    return found
