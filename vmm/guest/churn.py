"""Buffers that the kernel maps and unmaps for a device beside its workload.

Each buffer lies somewhere in the device's slabs and has an IOVA of its own; the device is not told of it. So churn
exercises map, unmap and invalidation only, and moves no byte. The oldest buffer goes when one more than `live` would
be mapped. When table pages run short, buffers go and none come, so that the device's own driver is never starved.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from vmm.guest.device_driver import ProgressRefused
from vmm.guest.dma import DmaMapper, MapFailed
from vmm.guest.layout import SLAB_SIZE, DeviceArea
from vmm.guest.pacing import NEVER, Pacer
from vmm.guest.pseudorandom import mixed_one
from vmm.guest.vtd_tables import LARGE_PAGE
from vmm.memory.guest_physical import page_count
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress, Iova

_BATCH: Final = 32
_BATCH_PAGES: Final = 2048


class ChurnState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What moves: how many were ever mapped, and the IOVAs of those that are, oldest first."""

    on: bool
    mapped: int
    live: tuple[int, ...]


class Churn:
    """One device's churn. It is on from the start."""

    def __init__(
        self,
        mapper: DmaMapper,
        area: DeviceArea,
        *,
        maps_per_s: int,
        buffer: int,
        live: int,
        seed: int,
        has_room: Callable[[], bool],
    ) -> None:
        self._mapper: Final = mapper
        self._area: Final = area
        space = area.slab_count * SLAB_SIZE
        self._length: Final = max(PAGE_SIZE, min(page_count(buffer) * PAGE_SIZE, space))
        grain = LARGE_PAGE if self._length >= LARGE_PAGE else PAGE_SIZE
        self._grain: Final = grain
        self._places: Final = (space - self._length) // grain + 1
        self._most: Final = live
        self._batch: Final = max(1, min(_BATCH, live, _BATCH_PAGES * PAGE_SIZE // self._length))
        self._seed: Final = seed
        self._has_room: Final = has_room
        self._pacer: Final = Pacer(maps_per_s)
        self._live: deque[Iova] = deque()
        self._mapped = 0
        self.on = True

    @property
    def empty(self) -> bool:
        """Whether nothing is mapped."""
        return not self._live

    def step(self, now_ns: int) -> int:
        """Map what is due, at most a batch, and unmap what is too much; return when the next step is due."""
        due = min(self._pacer.due(now_ns), self._batch)
        if not self.on:
            return NEVER
        if due > 0:
            self._pacer.spend(due)
            self._unmap(len(self._live) + due - self._most)
            if not self._has_room() or not self._map(due):
                self._unmap(due)
        return self._pacer.moment_of(min(self._batch, max(1, self._pacer.rate // 1000)))

    def drain(self) -> None:
        """Unmap a batch of what is mapped."""
        self._unmap(self._batch)

    def restart_clock(self) -> None:
        """Forget the clock."""
        self._pacer.restart()

    def save(self) -> ChurnState:
        """Return the state that moves."""
        return ChurnState(self.on, self._mapped, tuple(self._live))

    def load(self, state: ChurnState) -> None:
        """Go on from a state.

        Raises:
            ProgressRefused: More is mapped than may be. Nothing was changed.
        """
        if len(state.live) > self._most:
            raise ProgressRefused(f"State has {len(state.live)} live buffers of {self._most}")
        self.on, self._mapped = state.on, state.mapped
        self._live = deque(map(Iova, state.live))
        self.restart_clock()

    def _map(self, count: int) -> bool:
        draws = (mixed_one(self._seed ^ number) for number in range(self._mapped, self._mapped + count))
        places = [self._area.slabs + draw % self._places * self._grain for draw in draws]
        try:
            iovas = self._mapper.map([(GuestPhysicalAddress(place), self._length) for place in places])
        except MapFailed:
            return False
        self._live.extend(iovas)
        self._mapped += count
        return True

    def _unmap(self, count: int) -> None:
        oldest = [self._live.popleft() for _ in range(min(count, len(self._live)))]
        if oldest:
            self._mapper.unmap([(iova, self._length) for iova in oldest])
