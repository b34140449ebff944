"""Mappings in a host's container that the device's address space does not show any more, or shows elsewhere in RAM."""

from collections.abc import Iterator, Sequence

from lab.rehearsal.side import Side
from vmm.memory.guest_physical import AccessFault, GuestMemory

Placed = tuple[int, int, int]
"""IOVA, size, offset in RAM."""


def stale_mappings(side: Side) -> int:
    """Count them over all containers; one that several devices share is compared with the space of any of them."""
    memory = side.machine.memory
    shown = [list(_placed(memory, assembled.listener.shown())) for assembled in side.machine.devices]
    return sum(min((_stale(mapped, space) for space in shown), default=0) for mapped in side.host.containers())


def _placed(memory: GuestMemory, shown: Sequence[tuple[int, int, int]]) -> Iterator[Placed]:
    for iova, size, address in shown:
        try:
            yield iova, size, memory.offset_of(address, size)
        except AccessFault:
            continue  # no RAM is there, so nothing of it can be mapped


def _stale(mapped: Sequence[Placed], shown: Sequence[Placed]) -> int:
    ranges = sorted(shown)
    return sum(not _is_shown(mapping, ranges) for mapping in mapped)


def _is_shown(mapping: Placed, ranges: Sequence[Placed]) -> bool:
    iova, size, offset = mapping
    position = iova
    for first, length, place in ranges:
        if first <= position < first + length and place - first == offset - iova:
            position = first + length
    return position >= iova + size
