"""What a report says of its rounds, laid out on the time that they took. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from orchestrator.result import rounds_closed
from vm_migration.api.v1 import source_pb2, types_pb2

_PAGE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Stretch:
    """A round: from when to when in milliseconds since the first began, and its figures in bytes and bytes a second."""

    number: int
    begins_ms: float
    ends_ms: float
    dirty_bytes: int
    """What was left to send when it began."""
    wire_rate: float
    sent_rate: float
    """Of the pages that were sent, before anything made them fewer."""
    dirty_rate: float
    cpu_rate: float
    """Of the dirtied, what the vCPUs wrote; 0 where the agent does not count it apart."""
    dma_rate: float
    throttle_percent: int
    """Of the vCPUs' time; the other is of the devices'."""
    device_throttle_percent: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All rounds that a report tells, oldest first."""

    stretches: tuple[Stretch, ...]
    closed: int
    """Rounds that there were; a report of many tells some."""
    left_bytes: int
    """What is left to send after the last."""
    shrunk: bool
    """Whether pages travelled compressed, as deltas or as references: the wire carried less than their bytes."""
    stopped: bool
    """Whether the guest stood still in the last."""

    @property
    def length_ms(self) -> float:
        """How long the rounds took together."""
        return self.stretches[-1].ends_ms if self.stretches else 0.0

    @property
    def whole(self) -> bool:
        """Whether every round is told."""
        return self.closed <= len(self.stretches)

    @property
    def apart(self) -> bool:
        """Whether what vCPUs and what devices dirtied is counted apart."""
        return any(one.cpu_rate or one.dma_rate for one in self.stretches)

    @property
    def throttled(self) -> bool:
        """Whether time was taken from the vCPUs."""
        return any(one.throttle_percent for one in self.stretches)

    @property
    def devices_held(self) -> bool:
        """Whether time was taken from the devices."""
        return any(one.device_throttle_percent for one in self.stretches)


def timeline(report: source_pb2.AttemptReport) -> Timeline:
    """Lay out the rounds of a report; agents that tell no times tell every round, one after the other."""
    stretches: list[Stretch] = []
    for one in report.rounds:
        before = stretches[-1].ends_ms if stretches else 0.0
        ms, ended = _finite(one.ms), _finite(one.ended_ms)
        ends = max(before, ended) if ended else before + ms
        stretches.append(_stretch(one, max(before, ends - ms), ends))
    return Timeline(
        stretches=tuple(stretches),
        closed=rounds_closed(report),
        left_bytes=_left_bytes(report),
        shrunk=any(one.compressed_pages or one.delta_pages or one.reference_pages for one in report.rounds),
        stopped=report.HasField("downtime") and len(stretches) > 1,
    )


def _left_bytes(report: source_pb2.AttemptReport) -> int:
    """Return what the last round left to a next one: what remains of that, if it is under way, is less already."""
    if not report.rounds or report.outcome == "completed":
        return report.remaining_bytes
    last = report.rounds[-1]
    return max(report.remaining_bytes, int(_finite(last.dirty_bytes_per_s) * _finite(last.ms) / 1000))


def _stretch(one: types_pb2.Round, begins_ms: float, ends_ms: float) -> Stretch:
    return Stretch(
        number=one.round,
        begins_ms=begins_ms,
        ends_ms=ends_ms,
        dirty_bytes=one.dirty_pages * _PAGE_BYTES,
        wire_rate=_finite(one.wire_bytes_per_s),
        sent_rate=_rate(one.sent_pages, one.ms),
        dirty_rate=_finite(one.dirty_bytes_per_s),
        cpu_rate=_rate(one.cpu_dirtied_pages, one.ms),
        dma_rate=_rate(one.dma_dirtied_pages, one.ms),
        throttle_percent=one.throttle_percent,
        device_throttle_percent=one.device_throttle_percent,
    )


def _rate(pages: int, ms: float) -> float:
    return _finite(pages * _PAGE_BYTES * 1000 / ms) if ms > 0 else 0.0


def _finite(value: float) -> float:
    """Return what can be drawn: what has no end counts for nothing."""
    return value if math.isfinite(value) else 0.0
