"""Drawings of an attempt's rounds on one time axis: what is left to send, rates, throttling."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from orchestrator.picture.axis import Axis, byte_ticks, time_ticks
from orchestrator.picture.markup import node, place
from orchestrator.picture.timeline import Stretch, Timeline
from orchestrator.render.quantities import rate, size, span

WIDTH: Final = 960.0
_HEIGHT: Final = 262.0
_LEFT: Final = 92.0
_RIGHT: Final = WIDTH - 14.0
_TOP: Final = 46.0
_BOTTOM: Final = _HEIGHT - 34.0
_MOST_BANDS: Final = 60
_NUMBER_WIDTH: Final = 22.0
_TIME_MARKS: Final = 8
_MARKS: Final = 4
_FEW_ROUNDS: Final = 4
_DWARFED: Final = 0.25
_FAR_ABOVE: Final = 2.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a drawing; `style` names its colour and dashes in the page's style sheet."""

    label: str
    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is to be drawn, and in words for who does not see it. Values by milliseconds."""

    name: str
    title: str
    description: str
    lines: tuple[Line, ...]
    marks: tuple[float, ...]
    label: Callable[[float], str]
    filled: bool = False


def remaining_drawing(line: Timeline) -> Drawing:
    """Return what was left to send when each round began, and after the last."""
    points = [(one.begins_ms, float(one.dirty_bytes)) for one in line.stretches]
    points.append((line.length_ms, float(line.left_bytes)))
    most = max(value for _, value in points)
    begun, ended = size(points[0][1]), size(line.left_bytes)
    described = f"At the beginning {begun} were left to send; after {span(line.length_ms)}, {ended}."
    return Drawing(
        "remaining",
        "Memory left to send",
        described,
        (Line("left to send", "remaining", tuple(points)),),
        byte_ticks(most, _MARKS),
        size,
        filled=True,
    )


def tail_drawing(line: Timeline) -> Drawing | None:
    """Return what was left from the second round on, on a scale of its own; None where the first does not dwarf it."""
    if len(line.stretches) < _FEW_ROUNDS:
        return None
    first, *later = line.stretches
    points = [(one.begins_ms, float(one.dirty_bytes)) for one in later]
    points.append((line.length_ms, float(line.left_bytes)))
    most = max(value for _, value in points)
    if most > first.dirty_bytes * _DWARFED:
        return None
    words = f"After the first round at most {size(most)} were left to send; in the end {size(line.left_bytes)}."
    lines = (Line("left to send", "remaining", tuple(points)),)
    return Drawing(
        "tail",
        "Memory left to send, from the second round on",
        words,
        lines,
        byte_ticks(most, _MARKS),
        size,
        filled=True,
    )


def rates_drawing(line: Timeline, limit: float = 0.0, *, tuned: bool = False) -> Drawing:
    """Return how fast the link carried memory, and how fast vCPUs and devices dirtied it, below a limit if any.

    Of a limit that was tuned, the last value is drawn: since when it holds is not told. One far above all rates would
    flatten them, and is told in words.
    """
    lines = [Line("on the wire", "wire", _steps(line.stretches, lambda one: one.wire_rate))]
    if line.shrunk:
        lines.append(Line("pages sent", "sent", _steps(line.stretches, lambda one: one.sent_rate)))
    if line.apart:
        lines.append(Line("dirtied by vCPUs", "cpu", _steps(line.stretches, lambda one: one.cpu_rate)))
        lines.append(Line("dirtied by devices (DMA)", "dma", _steps(line.stretches, lambda one: one.dma_rate)))
    else:
        lines.append(Line("dirtied", "cpu", _steps(line.stretches, lambda one: one.dirty_rate)))
    most = max(value for one in lines for _, value in one.points)
    told = ", ".join(f"{one.label} at most {rate(max(value for _, value in one.points))}" for one in lines)
    described = f"Bytes a second in each round: {told}."
    label = "limit in the end" if tuned else "bandwidth limit"
    if limit > most * _FAR_ABOVE:
        described += f" The {label} is {rate(limit)}."
    elif limit:
        lines.append(Line(label, "bound", ((0.0, limit), (line.length_ms, limit))))
        most = max(most, limit)
    return Drawing("rates", "Rates", described, tuple(lines), byte_ticks(most, _MARKS), rate)


def throttle_drawing(line: Timeline) -> Drawing:
    """Return what share of their time was taken from the vCPUs."""
    steps = _steps(line.stretches, lambda one: float(one.throttle_percent))
    return _share_drawing("throttle", "vCPU throttling", "vCPUs", Line("throttled", "throttle", steps))


def held_drawing(line: Timeline) -> Drawing:
    """Return what share of their time was taken from the devices."""
    steps = _steps(line.stretches, lambda one: float(one.device_throttle_percent))
    return _share_drawing("held", "Device throttling", "devices", Line("held", "dma", steps))


def _share_drawing(name: str, title: str, whose: str, share: Line) -> Drawing:
    most = max(value for _, value in share.points)
    described = f"At most {most:.0f} % of the {whose}' time was taken from them, so that they dirty less."
    marks = (0.0, 25.0, 50.0, 75.0, 100.0)
    return Drawing(name, title, described, (share,), marks, lambda value: f"{value:.0f} %")


def drawn(drawing: Drawing, line: Timeline) -> Element:
    """Return a drawing as an SVG element, with its title and description inside, in a box that scrolls."""
    across = Axis(line.length_ms, _LEFT, _RIGHT)
    most = max((value for one in drawing.lines for _, value in one.points), default=0.0)
    up = Axis(max(most, drawing.marks[-1]), _BOTTOM, _TOP)
    title, described = f"{drawing.name}-title", f"{drawing.name}-words"
    picture = node(
        "svg",
        node("title", drawing.title, id=title),
        node("desc", drawing.description, id=described),
        *_bands(line, across),
        *_marks_up(drawing, up),
        *_marks_across(line, across),
        *_filled(drawing, across, up),
        *(
            node("polyline", points=_placed(one.points, across, up), class_=f"line {one.style}")
            for one in drawing.lines
        ),
        *_legend(drawing.lines),
        viewBox=f"0 0 {place(WIDTH)} {place(_HEIGHT)}",
        role="img",
        aria_labelledby=f"{title} {described}",
    )
    return node("div", picture, class_="scroll")


def _steps(stretches: Sequence[Stretch], value: Callable[[Stretch], float]) -> tuple[Point, ...]:
    """Return a line that is level for as long as each round took; over rounds that are not told it goes straight."""
    return tuple(point for one in stretches for point in ((one.begins_ms, value(one)), (one.ends_ms, value(one))))


def _placed(points: Iterable[Point], across: Axis, up: Axis) -> str:
    return " ".join(f"{place(across.at(ms))},{place(up.at(value))}" for ms, value in points)


def _filled(drawing: Drawing, across: Axis, up: Axis) -> list[Element]:
    if not drawing.filled:
        return []
    (one,) = drawing.lines
    closed = ((one.points[0][0], 0.0), *one.points, (one.points[-1][0], 0.0))
    return [node("polygon", points=_placed(closed, across, up), class_=f"area {one.style}")]


def _bands(line: Timeline, across: Axis) -> list[Element]:
    """Shade every second round, and the one in which the guest stood still; many rounds get no shade."""
    found: list[Element] = []
    for at, one in enumerate(line.stretches):
        still = line.stopped and at == len(line.stretches) - 1
        if not still and (len(line.stretches) > _MOST_BANDS or not line.whole):
            continue
        begins, ends = across.at(one.begins_ms), across.at(one.ends_ms)
        words = _words(one) + (", with the guest stopped" if still else "")
        style = "band still" if still else f"band {'odd' if at % 2 else 'even'}"
        hover = node("title", words)
        found.append(
            node("rect", hover, x=begins, y=_TOP, width=max(ends - begins, 0.5), height=_BOTTOM - _TOP, class_=style)
        )
        if ends - begins >= _NUMBER_WIDTH:
            found.append(node("text", str(one.number), x=(begins + ends) / 2, y=_TOP - 5, class_="number"))
    return found


def _words(one: Stretch) -> str:
    took = span(one.ends_ms - one.begins_ms)
    return (
        f"round {one.number}: {size(one.dirty_bytes)} in {took}, wire {rate(one.wire_rate)}, "
        f"dirtied {rate(one.dirty_rate)}"
    )


def _marks_up(drawing: Drawing, up: Axis) -> list[Element]:
    found: list[Element] = []
    for mark in drawing.marks:
        y = up.at(mark)
        found.append(node("line", x1=_LEFT, y1=y, x2=_RIGHT, y2=y, class_="grid"))
        found.append(node("text", _short(drawing.label(mark)), x=_LEFT - 8, y=y + 4, class_="mark up"))
    return found


def _marks_across(line: Timeline, across: Axis) -> list[Element]:
    found: list[Element] = []
    for mark in time_ticks(line.length_ms, _TIME_MARKS):
        x = across.at(mark)
        found.append(node("line", x1=x, y1=_BOTTOM, x2=x, y2=_BOTTOM + 5, class_="tick"))
        found.append(node("text", _short(span(mark)), x=x, y=_BOTTOM + 19, class_="mark"))
    return found


def _legend(lines: Sequence[Line]) -> list[Element]:
    x, found = _LEFT, list[Element]()
    for one in lines:
        found.append(node("line", x1=x, y1=16, x2=x + 28, y2=16, class_=f"line {one.style}"))
        found.append(node("text", one.label, x=x + 34, y=20, class_="legend"))
        x += 34 + 7.2 * len(one.label) + 22
    return found


def _short(text: str) -> str:
    """Drop a decimal that says nothing: 20.0 MiB is 20 MiB on an axis."""
    return text.replace(".0 ", " ")
