"""Whether a bulk stream still lives: pure, from what was seen of it and when.

::

    the peer tells every second     silent for STALL                            -> dead
    how far it is                   lives, and nothing applied for UNMOVED
                                    of what was sent or asked                   -> dead
    it does not (version 0.1)       a write blocked for STALL, nothing heard    -> dead
                                    an answer awaited for 2 x STALL, likewise   -> dead

A slow link whose buffers are full carries the answers of its peer all the same; a cable that was pulled carries
nothing. Times are seconds of one clock.
"""

from dataclasses import dataclass
from typing import Final

STALL: Final = 5.0
"""Seconds of silence after which a stream that must be heard is dead."""
UNMOVED: Final = 30.0
"""Seconds in which a peer that lives must have applied something: a frame takes 9 s at 1 Mbit/s."""


@dataclass
class Pulse:
    """What was seen of one stream; `since` is when it was opened."""

    since: float
    tells: bool = False
    """The peer tells of its own accord how far it is."""

    def __post_init__(self) -> None:
        self._heard = self._moved = self.since
        self._applied = 0
        self._writing: float | None = None
        self._asked: float | None = None

    def wrote(self, now: float) -> None:
        """Note that the transport took what was written last."""
        self._writing = None
        if not self.tells:  # else it says only that a buffer had room
            self._heard = now

    def writes(self, now: float) -> None:
        """Note that something is given to the transport."""
        self._writing = now

    def asks(self, now: float) -> None:
        """Note that an answer is awaited from now on, if none was."""
        self._asked = self._asked or now

    def heard(self, now: float, applied: int, *, awaited: bool, tells: bool) -> None:
        """Note an answer: so many frames are applied, and whether further answers are awaited."""
        self._heard = now
        self.tells = self.tells or tells
        if applied > self._applied:
            self._applied, self._moved = applied, now
        if not awaited:
            self._asked = None
        elif not tells:
            self._asked = now

    def dead_at(self) -> float:
        """Return when the stream is dead if nothing more is seen of it; infinite where nothing must be."""
        pending = [since for since in (self._writing, self._asked) if since is not None]
        if self.tells:
            unmoved = max(self._moved, min(pending)) + UNMOVED if pending else float("inf")
            return min(self._heard + STALL, unmoved)
        limits = []
        if self._writing is not None:
            limits.append(max(self._heard, self._writing) + STALL)
        if self._asked is not None:
            limits.append(max(self._heard, self._asked) + 2 * STALL)
        return min(limits, default=float("inf"))
