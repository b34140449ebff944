"""Domains of the VT-d driver: what a device's requests meet, and an IOVA space of its own where they are translated."""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from vmm.guest.dma import Buffer, DmaMapper, MapFailed, Mapping
from vmm.guest.iova_allocator import IovaAllocator
from vmm.guest.vtd_errors import NotMapped
from vmm.guest.vtd_queue import Descriptor, InvalidationRing, translations_of_range
from vmm.guest.vtd_tables import SecondStageTables, TablePool
from vmm.memory.quantities import Iova


class DomainKind(Enum):
    """What a device's requests meet; `PAGING` is the kernel's own domain, `USER` that of a user-level driver."""

    IDENTITY = "identity"
    PAGING = "paging"
    USER = "user"
    BLOCKED = "blocked"


class IdentityMapper(DmaMapper):
    """Without translation a device uses guest-physical addresses, and nothing is mapped."""

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Return the buffers' own addresses."""
        return [Iova(address) for address, _ in buffers]

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Do nothing."""


class PagingDomain(DmaMapper):
    """One device's IOVA space; it outlives the device's absence in other domains."""

    def __init__(
        self,
        domain_id: int,
        tables: SecondStageTables,
        allocator: IovaAllocator,
        pool: TablePool,
        ring: InvalidationRing,
    ) -> None:
        self.domain_id: Final = domain_id
        self.tables: Final = tables
        self.allocator: Final = allocator
        self._pool: Final = pool
        self._ring: Final = ring

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        """Map buffers, then invalidate their ranges once.

        Raises:
            MapFailed: No table page or IOVA is left; nothing of the batch is mapped.
        """
        mapped: list[Mapping] = []
        try:
            for address, length in buffers:
                iova = self.allocator.allocate(length)
                mapped.append((iova, length))
                self.tables.map(iova, address, length)
        except MapFailed:
            # The unit has not been told of any of it, so its pages and addresses are free at once.
            self._release(mapped, self._clear(mapped)[0])
            raise
        self._invalidate(mapped)
        return [iova for iova, _ in mapped]

    def map_at(self, iova: Iova, buffer: Buffer) -> None:
        """Map a buffer at an address that the caller keeps track of, as a user-level driver does.

        Raises:
            MapFailed: No table page is left; nothing of it is mapped.
        """
        address, length = buffer
        try:
            self.tables.map(iova, address, length)
        except MapFailed:
            self._pool.release(self._clear([(iova, length)])[0])
            raise
        self._invalidate([(iova, length)])

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        """Take mappings away; the device does not reach the buffers when this returns.

        Raises:
            NotMapped: Something of it was not mapped; the rest is unmapped, and no address is used again.
        """
        emptied, whole = self._clear(mappings)
        self._invalidate(mappings)
        if not whole:
            self._pool.release(emptied)
            raise NotMapped(f"Unmap of {len(mappings)} ranges in domain {self.domain_id} met one that is not mapped")
        self._release(mappings, emptied)

    def _clear(self, mappings: Sequence[Mapping]) -> tuple[list[int], bool]:
        emptied: list[int] = []
        whole = [self.tables.unmap(iova, length, emptied) for iova, length in mappings]
        return emptied, all(whole)

    def _invalidate(self, mappings: Sequence[Mapping]) -> None:
        descriptors: list[Descriptor] = []
        for iova, length in mappings:
            descriptors += translations_of_range(self.domain_id, iova, length)
        self._ring.submit(descriptors)

    def _release(self, mappings: Sequence[Mapping], emptied: list[int]) -> None:
        self._pool.release(emptied)
        for iova, length in mappings:
            self.allocator.free(iova, length)
