"""Whether another round still gains anything, looked at where a round closes.

::

    stalled    what is left >= (1 - 4 %) x the least that was left at any boundary at least the patience ago
    target     the least that was ever left
    near       what is left <= (1 + 4 %) x the target: a local minimum, the moment to stop the guest
    a window   begins with the stall, of the patience's length; at its end the target is relaxed to the least left that
               was seen since and was no target yet, and the next window has half the length
    over       what is left falls below the stall's own threshold

A remainder that goes up and down with the guest's phases, or with a link that is slow for a moment, is no stall while
it falls over the patience as a whole, and a small one in between does not hide a stall. Source: KubeVirt's VEP 248
(kubevirt/enhancements, sig-compute/248-migration-convergence), with the devices' state counted into what is left.
"""

from dataclasses import dataclass, replace
from typing import Final

from vm_migration.transfer.profiles import Profile

MARGIN: Final = 0.04
"""What is within this share of each other is the same."""
DECAY: Final = 0.5
"""Each window of a stall is this much of the one before."""
LEAST_WINDOW_MS: Final = 1000.0
_REMEMBERED: Final = 64
"""Remainders of a stall that may become targets; more than any profile relaxes."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """What was left when a round closed: pages, and what a stop would leave of the devices' state."""

    at_ms: float
    left_bytes: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A stall that lasts."""

    target_bytes: int
    seen: tuple[int, ...]
    """What was left since it began and was no target yet, the least first."""
    window_ms: float
    until_ms: float
    """When the window ends."""
    relaxed: int = 0
    """How often the target was."""


@dataclass(frozen=True, slots=True)
class StallWatch:
    """What is known when a round has closed; begins with the first."""

    minima: tuple[Boundary, ...] = ()
    """Boundaries that left less than all before them, but for those that a later one replaces for good."""
    left_bytes: int = 0
    stall: Stall | None = None
    presses: bool = False
    """A window of the stall began at this boundary: the moment for another step."""

    @property
    def near_minimum(self) -> bool:
        """Whether it has stalled, and what is left is about the least that can be hoped for."""
        return self.stall is not None and self.left_bytes <= self.stall.target_bytes * (1 + MARGIN)

    def after(self, boundary: Boundary, profile: Profile) -> "StallWatch":
        """Return what is known after another round; `at_ms` never falls."""
        minima = self.minima
        if not minima or boundary.left_bytes < minima[-1].left_bytes:
            minima = (*minima, boundary)
        long_ago = [each for each in minima if each.at_ms <= boundary.at_ms - profile.patience_ms]
        minima = minima[max(0, len(long_ago) - 1) :]
        if not long_ago or boundary.left_bytes < long_ago[-1].left_bytes * (1 - MARGIN):
            return StallWatch(minima, boundary.left_bytes)
        if self.stall is None:
            begun = Stall(
                target_bytes=minima[-1].left_bytes,
                seen=(boundary.left_bytes,),
                window_ms=profile.patience_ms,
                until_ms=boundary.at_ms + profile.patience_ms,
            )
            return StallWatch(minima, boundary.left_bytes, begun, presses=True)
        seen = tuple(sorted((*self.stall.seen, boundary.left_bytes))[:_REMEMBERED])
        lasting = replace(self.stall, seen=seen)
        if boundary.at_ms < lasting.until_ms:
            return StallWatch(minima, boundary.left_bytes, lasting)
        return StallWatch(minima, boundary.left_bytes, _next_window(lasting, boundary, profile), presses=True)


def _next_window(stall: Stall, boundary: Boundary, profile: Profile) -> Stall:
    window_ms = max(LEAST_WINDOW_MS, stall.window_ms * DECAY)
    later = replace(stall, window_ms=window_ms, until_ms=boundary.at_ms + window_ms)
    if stall.relaxed >= profile.relaxations:
        return later
    target, *seen = stall.seen
    return replace(later, target_bytes=max(stall.target_bytes, target), seen=tuple(seen), relaxed=stall.relaxed + 1)
