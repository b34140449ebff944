"""One machine's RAM, VT-d unit and guest driver, and a listener that checks what it is told."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from vmm.guest.layout import TABLES_BASE
from vmm.guest.vtd_driver import VtdDriver
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import Section
from vmm.viommu.events import IommuEvent
from vmm.viommu.intel import DeviceAddressSpace, VtdConfiguration, VtdUnit
from vmm.viommu.walk import Translation

RAM = 16 << 20
DEVFN = 0x18
LARGE = 2 << 20
BUFFERS = 8 << 20


def buffer(offset: int, length: int) -> tuple[GuestPhysicalAddress, int]:
    return GuestPhysicalAddress(BUFFERS + offset), length


@dataclass
class Listener:
    """A container that believes every event, and refuses one that does not fit."""

    log: list[str] = field(default_factory=list)
    events: list[IommuEvent] = field(default_factory=list)
    held: dict[int, IommuEvent] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)

    def ram_added(self, section: Section) -> None:
        self.log.append(f"+ram {section.base:x}")

    def ram_removed(self, section: Section) -> None:
        self.log.append(f"-ram {section.base:x}")

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        self.log.append(f"+iommu {space.devfn:x}")

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        self.log.append(f"-iommu {space.devfn:x}")
        self.held.clear()
        self._starts.clear()

    def notify(self, event: IommuEvent) -> None:
        self.events.append(event)
        last = event.iova + event.mask
        low, high = bisect_left(self._starts, event.iova), bisect_right(self._starts, last)
        before = self.held[self._starts[low - 1]] if low else None
        assert before is None or before.iova + before.mask < event.iova
        inside = [self.held[start] for start in self._starts[low:high]]
        if not event.is_unmap:
            assert not inside
            self.held[event.iova] = event
            self._starts.insert(low, event.iova)
            return
        for old in inside:
            assert old.iova + old.mask <= last
            del self.held[old.iova]
        del self._starts[low:high]


class Rig:
    """One machine's RAM, unit, driver and the listener of one device."""

    def __init__(self, *, scalable: bool = True, aw_bits: int = 48, pool: int = 1 << 20) -> None:
        self.tracking = False
        self.memory = GuestMemory(RamBlock.create("vtd", RAM))
        configuration = VtdConfiguration(
            scalable=scalable, aw_bits=aw_bits, caching_mode=True, dma_translation=True, reports_max_iova=True
        )
        self.unit = VtdUnit(self.memory, configuration, lambda: self.tracking)
        self.listener = Listener()
        self.space = self.unit.address_space(DEVFN)
        self.space.set_listener(self.listener)
        self.driver = VtdDriver(self.memory, self, scalable=scalable, aw_bits=aw_bits, tables=(TABLES_BASE, pool))

    def read(self, offset: int) -> int:
        return self.unit.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        self.unit.write_register(offset, value)

    def walked(self) -> dict[int, tuple[int, int, bool, bool]]:
        """What the tables in RAM say of each page that the listener holds, one translation at a time."""
        reached: dict[int, tuple[int, int, bool, bool]] = {}
        for event in self.listener.held.values():
            for iova in range(event.iova, event.iova + event.mask, 4096):
                found = self.space.translate(iova, write=True)
                if isinstance(found, Translation):
                    reached[iova] = (found.translated, found.mask, found.readable, found.writable)
        return reached

    def held_pages(self) -> dict[int, tuple[int, int, bool, bool]]:
        pages = {}
        for event in self.listener.held.values():
            for offset in range(0, event.mask, 4096):
                translated = event.translated + offset
                pages[event.iova + offset] = (translated, event.mask, event.readable, event.writable)
        return pages
