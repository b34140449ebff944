"""Which IOVAs an IOMMU of Intel's kind lets a device use."""

from typing import Final

INTERRUPT_WINDOW: Final = (0xFEE0_0000, 0xFEEF_FFFF)
"""Writes there are interrupts, never DMA (semantics 1.1)."""


def allowed(last: int, *, interrupt_window: bool) -> tuple[tuple[int, int], ...]:
    """Return the inclusive ranges up to `last`, without the interrupt window when that applies."""
    if not interrupt_window:
        return ((0, last),)
    low, high = INTERRUPT_WINDOW
    return ((0, low - 1), (high + 1, last))


def contains(ranges: tuple[tuple[int, int], ...], iova: int, length: int) -> bool:
    """Tell whether one of the ranges holds all of a run."""
    return any(low <= iova and iova + length - 1 <= high for low, high in ranges)
