"""How the two directions of one connection end, each for itself: pure, the same at both hosts.

::

    open ── end heard here ──> only there speaks ── end heard there ──> over
      '──── end heard there ─> only here speaks ─── end heard here ───> over

An end is passed on behind everything that was said before it. Only a connection whose two directions have ended is
over; whatever ends before that has broken.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto


class StreamBroken(Exception):
    """A connection that was carried ended before both its directions had, or says what it may not."""


class Side(Enum):
    """Who speaks: the process on this host, or what the other host carries."""

    HERE = auto()
    THERE = auto()


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Which sides have said their last."""

    ended: frozenset[Side] = frozenset()

    @property
    def over(self) -> bool:
        """Whether both have."""
        return len(self.ended) == len(Side)

    def heard(self, side: Side, piece: bytes) -> "HalfClose":
        """Take the next piece of a side, an empty one being its end.

        Raises:
            StreamBroken: It had ended.
        """
        if side in self.ended:
            raise StreamBroken(f"Something was said {side.name.lower()} behind the end")
        return self if piece else replace(self, ended=self.ended | {side})

    def require_over(self) -> None:
        """Check, where nothing more can come, that nothing is missing.

        Raises:
            StreamBroken: A side had not ended.
        """
        if not self.over:
            missing = " and ".join(sorted(side.name.lower() for side in set(Side) - self.ended))
            raise StreamBroken(f"The connection broke off: no end was heard {missing}")
