"""VFIO's memory listener: what devices may reach follows their address space (semantics 1.1, 1.6, 5).

Without translation a device sees RAM, section by section. Behind an enabled vIOMMU it sees what the guest maps: the
vIOMMU's events become mappings and unmappings of the container, each translated to its place in RAM explicitly.
"""

from dataclasses import dataclass
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress, RamOffset
from vmm.memory.sections import Section
from vmm.rules import Rules
from vmm.vfio.container import Container, Ranges
from vmm.vfio.logging_ranges import Span, logging_ranges
from vmm.vfio.ram_pieces import Piece, pieces_of
from vmm.viommu.events import IommuEvent
from vmm.viommu.intel import DeviceAddressSpace


@dataclass(frozen=True, slots=True)
class IommuAttributes:
    """What a vIOMMU says of an address space before anything is mapped in it (semantics 4.15).

    `max_iova` is the last address, None where it reports no width; `dma_translation` is false where it only remaps
    interrupts.
    """

    max_iova: int | None
    dma_translation: bool


class VfioListener:
    """Implements `vmm.viommu.events.AddressSpaceListener` for one container.

    `attributes` are those of the vIOMMU that the address space is behind; None where it is RAM's own.
    """

    def __init__(
        self,
        memory: GuestMemory,
        container: Container,
        rules: Rules | None = None,
        attributes: IommuAttributes | None = None,
    ) -> None:
        self.container: Final = container
        self.attributes: Final = attributes
        self.wrong_targets = 0
        self._memory: Final = memory
        self._rules: Final = rules or Rules()
        self._sections: dict[int, Section] = {}
        self._space: DeviceAddressSpace | None = None

    @property
    def is_translated(self) -> bool:
        """Whether a vIOMMU that translates is in front of RAM, as soon as the guest turns it on."""
        return self.attributes is not None and self.attributes.dma_translation

    def ram_added(self, section: Section) -> None:
        """Map a section of RAM at its guest-physical address; only whole pages of the host's."""
        aligned = self._aligned(section)
        if aligned is None:
            return
        self._sections[aligned.base] = aligned
        self.container.map(aligned.base, aligned.offset, aligned.size, writable=True)

    def ram_removed(self, section: Section) -> None:
        """Unmap a section; with its backing told, so that what devices wrote to it is not forgotten (semantics 5.2).

        The memory listener has no way to say that this failed: it is only reported.
        """
        aligned = self._aligned(section)
        if aligned is None:
            return
        self._sections.pop(aligned.base, None)
        backing = _whole(aligned) if self._rules.track_region_del else None
        self.container.unmap(aligned.base, aligned.size, backing, ends_stream=False)

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        """Begin to follow a vIOMMU's events; the replay of what is mapped comes through `notify`."""
        self._space = space

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        """Drop what is left: the vIOMMU sent precise unmaps before."""
        del space
        self._space = None
        self.container.unmap_all()

    def notify(self, event: IommuEvent) -> None:
        """Follow one event of the vIOMMU; a MAP of what is not RAM is counted and leads to no mapping."""
        size = event.mask + 1
        if event.is_unmap:
            self.container.unmap(event.iova, size, pieces_of(self._memory, event.translated, size))
            return
        try:
            offset = self._memory.offset_of(event.translated, size)
        except AccessFault:
            self.wrong_targets += 1
            return
        self.container.map(event.iova, offset, size, writable=event.writable)

    def start_tracking(self) -> None:
        """Start whoever tracks for the container.

        Raises:
            HostCallFailed: Nothing tracks.
        """
        self.container.start_tracking(self._ranges_to_log())

    def log_sync(self) -> None:
        """Queue a read of every mapping's dirty bits."""
        if not self.container.synchronised:
            return
        for section in self._sections.values():
            self.container.query(section.base, section.size, _whole(section))
        if self._space is not None:
            self._space.replay(self._sync_mapping)

    def shown(self) -> tuple[tuple[int, int, int], ...]:
        """Return what the address space shows of RAM, and nothing else should be mapped: (iova, size, address)."""
        sections = tuple((int(section.base), section.size, int(section.base)) for section in self._sections.values())
        if self._space is None:
            return sections
        return sections + tuple((record.iova, record.size + 1, record.translated) for record in self._space.mappings)

    def mappings(self) -> tuple[tuple[int, int, int, bool], ...]:
        """Return what the host has mapped of what is shown: (iova, size, offset in RAM, writable)."""
        has = dict(self.container.mapped)
        found = [(int(each.base), each.size, int(each.offset), True) for each in self._sections.values()]
        for record in () if self._space is None else self._space.mappings:
            size, address = record.size + 1, GuestPhysicalAddress(record.translated)
            if record.iova in has:  # else it is no RAM, or the host refused it
                found.append((record.iova, size, self._memory.offset_of(address, size), record.is_writable))
        return tuple(each for each in found if has.get(each[0]) == each[1])

    def _sync_mapping(self, event: IommuEvent) -> None:
        size = event.mask + 1
        self.container.query(event.iova, size, pieces_of(self._memory, event.translated, size))

    def _ranges_to_log(self) -> Ranges:
        """Return what devices are asked to log (semantics 2.6).

        With [3], and behind a vIOMMU that translates and tells its width, the whole space of addresses. Else the
        sections of RAM, as without a vIOMMU: what a guest maps at other addresses is then not logged.
        """
        attributes, rules = self.attributes, self._rules
        if attributes is not None and attributes.max_iova is not None and rules.v3:
            translating = attributes.dma_translation or not rules.interrupt_only_viommu_allowed
            if translating and rules.logger_ranges_cover_iova_space:
                return ((0, attributes.max_iova + 1),)
        sections = [aligned for section in self._memory.sections if (aligned := self._aligned(section))]
        return logging_ranges(Span(section.base, section.size) for section in sections)

    def _aligned(self, section: Section) -> Section | None:
        """Return a section cut to whole pages of the host's, as far as there are any (semantics 1.1)."""
        page = self.container.backend.page_size
        if (section.base - section.offset) % page:
            return None
        low = -(-section.base // page) * page
        high = (section.base + section.size) // page * page
        if low >= high or low >> 63:
            return None
        offset = section.offset + low - section.base
        return Section(GuestPhysicalAddress(low), RamOffset(offset), high - low)


def _whole(section: Section) -> tuple[Piece, ...]:
    return (Piece(0, section.offset, section.size),)
