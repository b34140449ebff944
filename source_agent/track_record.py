"""What this agent's last attempts showed of the links and of itself, for the next one's forecast; pure.

Only completed attempts count, and only figures that say something: of a link, rounds that moved enough, and none that a
limit of the user's held back. The agent's life is its memory: a restarted agent assumes until it has measured again.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from source_agent.progress import Outcome, Progress
from vm_migration.transfer.convergence import RoundMeasurement
from vm_migration.transfer.ranges import Range
from vmm.memory.quantities import PAGE_SIZE

_KEPT: Final = 8
_ENOUGH_BYTES: Final = 1 << 20
_HELD_BACK: Final = 0.8
"""Of a limit: whoever comes so near to it was limited by it, and says nothing of the link."""
_PLAIN: Final = 1.05
"""Bytes of pages for each byte on the wire, below which hardly any were compressed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one attempt showed; times in milliseconds."""

    wire_bytes_per_s: float | None
    """What the wire carried; None where too little was moved, or a limit of the user's held it back."""
    fixed_ms: float
    """The standstill, less what the bytes of its frames take on the wire and what was hashed meanwhile."""
    around_ms: float
    """The whole, less Begin to Start, the rounds that something was sent in, and the standstill."""
    pages_per_wire: float = 1.0
    """Bytes of pages that a byte on the wire stood for, at least one."""
    packed_bytes_per_s: float | None = None
    """Pages that came across where codecs made them fewer: bounded by codecs, or by a wire that was full of what they
    made. None where hardly any were, or a limit of the user's held them back."""
    round_ms: float = 0.0
    """What a round took beside moving what it moved."""
    device_bytes_per_s: float | None = None
    """How fast devices' state went over while the machine stood still; None where there was too little."""
    hashed_bytes_per_s: float | None = None
    """How fast all memory was hashed meanwhile, from the last byte that was sent; None where it was not, or little."""

    @property
    def filled_the_wire(self) -> bool:
        """Whether nothing but the wire was waited for: no codec, which may have been slower."""
        return self.pages_per_wire < _PLAIN


class TrackRecord:
    """The last attempts to each destination, oldest first, of machines of one kind."""

    def __init__(self) -> None:
        self._shown: Final[dict[str, deque[Shown]]] = {}

    def note(self, destination: str, shown: Shown) -> None:
        """Remember an attempt; the oldest of many is forgotten."""
        self._shown.setdefault(destination, deque(maxlen=_KEPT)).append(shown)

    def link_bytes_per_s(self, destination: str) -> Range | None:
        """Return what the wire to a destination carries; None before the first attempt that showed it.

        An attempt whose pages were compressed shows only that the wire carries no less: it counts where no other is
        known, or those known are slower.
        """
        found: list[float] = []
        for each in self._to(destination):
            rate = each.wire_bytes_per_s
            if rate and (each.filled_the_wire or not found or rate > median(found)):
                found.append(rate)
        return Range.of_samples(found) if found else None

    def fixed_ms(self, destination: str) -> Range | None:
        """Return what a standstill takes beside its work, from attempts to this destination or else to any."""
        found = [each.fixed_ms for each in self._to(destination) or self._to_any()]
        return Range.of_samples(found) if found else None

    def device_bytes_per_s(self, destination: str) -> float | None:
        """Return how fast devices' state goes over while a machine stands still, likewise."""
        found = [each.device_bytes_per_s for each in self._to(destination) if each.device_bytes_per_s]
        found = found or [each.device_bytes_per_s for each in self._to_any() if each.device_bytes_per_s]
        return Range.of_samples(found).likely if found else None

    def hashed_bytes_per_s(self, destination: str) -> float | None:
        """Return how fast all memory is hashed at both ends while a machine stands still, likewise."""
        found = [each.hashed_bytes_per_s for each in self._to(destination) if each.hashed_bytes_per_s]
        found = found or [each.hashed_bytes_per_s for each in self._to_any() if each.hashed_bytes_per_s]
        return Range.of_samples(found).likely if found else None

    def around_ms(self, destination: str) -> Range | None:
        """Return what an attempt takes beside Prepare, rounds and standstill, likewise."""
        found = [each.around_ms for each in self._to(destination) or self._to_any()]
        return Range.of_samples(found) if found else None

    def packed_bytes_per_s(self, destination: str) -> Range | None:
        """Return the bytes of pages that came across in a second where codecs made them fewer; None before that."""
        found = [each.packed_bytes_per_s for each in self._to(destination) if each.packed_bytes_per_s]
        return Range.of_samples(found) if found else None

    def round_ms(self, destination: str) -> Range | None:
        """Return what a round takes beside moving what it moves, likewise."""
        found = [each.round_ms for each in self._to(destination) or self._to_any()]
        return Range.of_samples(found) if found else None

    def pages_per_wire(self) -> Range:
        """Return the bytes of pages that a byte on the wire may stand for; a machine may have nothing to compress."""
        found = [each.pages_per_wire for each in self._to_any()]
        if not found:
            return Range.exactly(1.0)
        seen = Range.of_samples(found)
        return Range(1.0, max(1.0, seen.likely), max(1.0, seen.high))

    def _to(self, destination: str) -> list[Shown]:
        return list(self._shown.get(destination, ()))

    def _to_any(self) -> list[Shown]:
        return [each for shown in self._shown.values() for each in shown]


class TrackRecords:
    """One for each kind of machine: what a process that moves itself takes says nothing of one whose pages are sent."""

    def __init__(self) -> None:
        self._of: Final[defaultdict[str, TrackRecord]] = defaultdict(TrackRecord)

    def of(self, kind: str) -> TrackRecord:
        """Return the record of machines of a kind, as specifications name it."""
        return self._of[kind]


def shown_by(progress: Progress, max_bandwidth_bytes_per_s: int) -> Shown | None:
    """Return what an attempt showed, under the limit that it ended with; None unless it completed."""
    if progress.outcome is not Outcome.COMPLETED or progress.downtime is None or progress.rounds.last is None:
        return None
    last = progress.rounds.last.measured
    closed = [each.measured for each in progress.rounds.told[:-1]]
    samples = _samples(closed)
    ms = sum(each.moving_ms for each in samples)
    moved, wire = sum(map(_moved, samples)), sum(each.wire_bytes for each in samples)
    carried = wire * 1000 / ms if ms > 0 else 0.0
    downtime_ms = progress.downtime.downtime_us / 1000
    hashed_ms = progress.downtime.verify_us / 1000 if progress.verified_by == "full" else 0.0
    hashed_bytes = progress.pages_verified * PAGE_SIZE
    state_bytes, state_ms = progress.device_bytes_stopped, progress.downtime.device_state_us / 1000
    much_state = state_bytes >= _ENOUGH_BYTES and state_ms > 0
    if carried:
        pages_ms = (last.wire_bytes - (state_bytes if much_state else 0)) * 1000 / carried
        work_ms = max(0.0, pages_ms) + (state_ms if much_state else 0.0)
    else:
        work_ms = last.ms if last.wire_bytes >= _ENOUGH_BYTES else 0.0
    zeros_ms = sum(each.ms for each in closed if _looked_at_zeros(each))
    rounds_ms = progress.rounds.last.ended_ms - last.ms - zeros_ms
    limit = max_bandwidth_bytes_per_s
    held_back = limit and carried >= _HELD_BACK * limit
    packed = wire > 0 and moved >= _PLAIN * wire and not held_back
    return Shown(
        wire_bytes_per_s=None if not carried or held_back else carried,
        fixed_ms=max(0.0, downtime_ms - work_ms - hashed_ms),
        around_ms=max(0.0, progress.total_ms - progress.started_after_ms - rounds_ms - downtime_ms),
        pages_per_wire=max(1.0, moved / wire) if wire else 1.0,
        packed_bytes_per_s=moved * 1000 / ms if packed else None,
        round_ms=median(max(0.0, each.ms - each.moving_ms) for each in closed) if closed else 0.0,
        device_bytes_per_s=state_bytes * 1000 / state_ms if much_state else None,
        hashed_bytes_per_s=hashed_bytes * 1000 / hashed_ms if hashed_ms > 0 and hashed_bytes >= _ENOUGH_BYTES else None,
    )


def _samples(rounds: list[RoundMeasurement]) -> list[RoundMeasurement]:
    enough = (each for each in rounds if each.is_sample and each.wire_bytes >= _ENOUGH_BYTES and each.moving_ms > 0)
    return [each for each in enough if not _looked_at_zeros(each)]


def _looked_at_zeros(measured: RoundMeasurement) -> bool:
    """Say whether most of a round's time may have gone into pages that hold nothing, which no link carries."""
    return not measured.sending_ms and measured.zero_pages > measured.sent_pages


def _moved(measured: RoundMeasurement) -> int:
    """Return the bytes that a round moved: pages and devices' state, however few its pages became on the wire."""
    return max(measured.sent_pages * PAGE_SIZE, measured.wire_bytes)
