"""A set of bits that costs what is set: a terabyte's pages take nothing until one of them is written.

The bits are kept as integers, one for each stretch of 1024 that has any. Setting a few bits is one small shift and
OR; reading a range looks at the stretches that exist in it, or at those of the range where these are fewer.
"""

from collections.abc import Iterator
from typing import Final

_SHIFT: Final = 10
STRETCH: Final = 1 << _SHIFT
_FULL: Final = (1 << STRETCH) - 1


class SparseBits:
    """Bits by number, from 0 on without end."""

    __slots__ = ("_stretches",)

    def __init__(self) -> None:
        self._stretches: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._stretches)

    def mark(self, first: int, count: int) -> None:
        """Set a run of bits."""
        stretches, end = self._stretches, first + count
        while first < end:
            number, start = first >> _SHIFT, first & (STRETCH - 1)
            size = min(STRETCH - start, end - first)
            if size == STRETCH:
                stretches[number] = _FULL
            else:
                stretches[number] = stretches.get(number, 0) | ((1 << size) - 1) << start
            first += size

    def clear(self) -> None:
        """Reset every bit."""
        self._stretches.clear()

    def windows(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what is set in [first, end), ascending, as (number of the lowest bit, bits from there on)."""
        for number in self._numbers(first, end):
            bits, base = self._stretches[number], number << _SHIFT
            if base < first:
                bits >>= first - base
                base = first
            if base + STRETCH > end:
                bits &= (1 << end - base) - 1
            if bits:
                yield base, bits

    def reset(self, first: int, end: int) -> None:
        """Reset the bits in [first, end)."""
        for number in self._numbers(first, end):
            low = max(first - (number << _SHIFT), 0)
            high = min(end - (number << _SHIFT), STRETCH)
            kept = self._stretches[number] & ~((1 << high) - (1 << low))
            if kept:
                self._stretches[number] = kept
            else:
                del self._stretches[number]

    def _numbers(self, first: int, end: int) -> list[int]:
        """Return the stretches that exist in a range, ascending."""
        if first >= end:
            return []
        low, high = first >> _SHIFT, (end - 1) >> _SHIFT
        if high - low < len(self._stretches):
            return [number for number in range(low, high + 1) if number in self._stretches]
        return sorted(number for number in self._stretches if low <= number <= high)


def runs_of(bits: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of ones of a number as (lowest bit, count), ascending."""
    place = 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        count = (~bits & bits + 1).bit_length() - 1
        bits >>= count
        place += skipped
        yield place, count
        place += count
