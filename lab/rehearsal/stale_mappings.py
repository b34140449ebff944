"""Mappings that are left in a host's container although the device's address space does not show them any more."""

from collections.abc import Sequence

from lab.rehearsal.side import Side


def stale_mappings(side: Side) -> int:
    """Count them over all containers; one that several devices share is compared with the space of any of them."""
    shown = [assembled.listener.shown() for assembled in side.machine.devices]
    return sum(min((_outside(mapped, space) for space in shown), default=0) for mapped in side.host.containers())


def _outside(mapped: Sequence[tuple[int, int]], shown: Sequence[tuple[int, int]]) -> int:
    ranges = sorted(shown)
    left = 0
    for iova, size in mapped:
        position = iova
        for first, length in ranges:
            if first <= position < first + length:
                position = first + length
        left += position < iova + size
    return left
