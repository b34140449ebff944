"""A unit whose structures a test writes word by word, and a listener that keeps one ordered log for every device."""

from dataclasses import dataclass, field

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import Section
from vmm.rules import Rules
from vmm.viommu import registers as reg
from vmm.viommu.events import IommuEvent
from vmm.viommu.intel import DeviceAddressSpace, VtdConfiguration, VtdUnit

RAM = 1 << 20
ROOT, CONTEXTS, QUEUE, STATUS = 0x1000, 0x2000, 0x8000, 0x9000
_TABLES = 0x40000

Log = list[tuple[str, int] | tuple[str, int, int, int]]


def configuration(*, scalable: bool = False, aw_bits: int = 48) -> VtdConfiguration:
    return VtdConfiguration(
        scalable=scalable, aw_bits=aw_bits, caching_mode=True, dma_translation=True, reports_max_iova=True
    )


def masks(log: Log) -> list[int]:
    return [entry[2] for entry in log if len(entry) == 4]


@dataclass
class Recorder:
    """Believes every event and asserts that it fits: one log over all devices, so that their order shows."""

    devfn: int
    log: Log
    held: dict[int, IommuEvent] = field(default_factory=dict)
    strict: bool = False
    """Whether an UNMAP must be of exactly one mapping, and name what that maps."""

    def ram_added(self, section: Section) -> None:
        self.log.append(("+ram", self.devfn))

    def ram_removed(self, section: Section) -> None:
        self.log.append(("-ram", self.devfn))

    def iommu_added(self, space: DeviceAddressSpace) -> None:
        assert not self.held
        self.log.append(("+iommu", self.devfn))

    def iommu_removed(self, space: DeviceAddressSpace) -> None:
        self.log.append(("-iommu", self.devfn))
        self.held.clear()

    def notify(self, event: IommuEvent) -> None:
        last = event.iova + event.mask
        inside = [old for old in self.held.values() if event.iova <= old.iova + old.mask and old.iova <= last]
        self.log.append(("unmap" if event.is_unmap else "map", event.iova, event.mask, event.translated))
        if not event.is_unmap:
            assert not inside
            self.held[event.iova] = event
        elif self.strict:
            (old,) = inside
            assert (event.iova, event.mask, event.translated) == (old.iova, old.mask, old.translated)
        for old in inside:
            assert event.iova <= old.iova
            assert old.iova + old.mask <= last
            del self.held[old.iova]


class BareUnit:
    """Devices get a context of their own, in scalable mode with a PASID directory and table of their own."""

    def __init__(self, *, scalable: bool = False, aw_bits: int = 48, rules: Rules | None = None) -> None:
        self.scalable = scalable
        self.levels = (aw_bits - 12) // 9
        self.tracking = False
        self.messages: list[tuple[int, int]] = []
        self.log: Log = []
        self.memory = GuestMemory(RamBlock.create("bare", RAM))
        self.unit = VtdUnit(
            self.memory,
            configuration(scalable=scalable, aw_bits=aw_bits),
            lambda: self.tracking,
            rules,
            lambda address, data: self.messages.append((address, data)),
        )
        self.listeners: dict[int, Recorder] = {}
        self.pasid_tables: dict[int, tuple[int, int]] = {}
        self.next_page = _TABLES
        self.tail = 0

    def follow(self, devfn: int, *, follows_maps: bool = True) -> DeviceAddressSpace:
        space, listener = self.unit.address_space(devfn), Recorder(devfn, self.log)
        self.listeners[devfn] = listener
        space.set_listener(listener, follows_maps=follows_maps)
        return space

    def enable(self) -> None:
        self.write(ROOT, CONTEXTS | 1, CONTEXTS | 1 if self.scalable else 0)
        self.unit.write_register(reg.RTADDR, ROOT | (reg.RTADDR_SMT if self.scalable else 0))
        self.unit.write_register(reg.GCMD, reg.SRTP)
        self.unit.write_register(reg.IQA, QUEUE | (reg.IQA_DW if self.scalable else 0))
        self.unit.write_register(reg.GCMD, reg.QIE)
        self.unit.write_register(reg.GCMD, reg.QIE | reg.TE)
        self.log.clear()

    def page(self) -> int:
        self.next_page += 4096
        return self.next_page - 4096

    def map(self, root: int, iova: int, entry: int, level: int = 1) -> int:
        """Write the entry of an address at a level, with the tables above it; return where it lies."""
        table = root
        for above in range(self.levels, level, -1):
            place = table + (iova >> 12 + 9 * (above - 1) & 511) * 8
            if not self.memory.read_u64(place) & 3:
                self.memory.write_u64(place, self.page() | 3)
            table = self.memory.read_u64(place) & ~0xFFF
        place = table + (iova >> 12 + 9 * (level - 1) & 511) * 8
        self.memory.write_u64(place, entry)
        return place

    def bind(self, devfn: int, domain_id: int, root: int | None) -> None:
        """Write a device's binding: tables, or pass-through without. In scalable mode this is its PASID entry."""
        if self.scalable:
            kind = 4 if root is None else 2
            self.write(self.pasid_entry(devfn), 1 | self.levels - 2 << 2 | kind << 6 | (root or 0), domain_id)
        else:
            kind = 2 if root is None else 0
            self.write(CONTEXTS + devfn * 16, 1 | kind << 2 | (root or 0), self.levels - 2 | domain_id << 8)

    def block(self, devfn: int) -> None:
        self.write(self.pasid_entry(devfn) if self.scalable else CONTEXTS + devfn * 16, 0, 0)

    def write(self, address: int, *words: int) -> None:
        for index, word in enumerate(words):
            self.memory.write_u64(address + index * 8, word)

    def binding_changed(self, devfn: int, domain_id: int) -> None:
        """Post what a guest posts after it changed a binding."""
        self.post((7 | 1 << 4 | domain_id << 16, 0) if self.scalable else (1 | 3 << 4 | devfn << 32, 0))

    def post(self, *descriptors: tuple[int, int]) -> None:
        size, shift = (128, 5) if self.scalable else (256, 4)
        for low, high in descriptors:
            self.write(QUEUE + (self.tail << shift), low, high)
            self.tail = (self.tail + 1) % size
        self.unit.write_register(reg.IQT, self.tail << shift)

    def pasid_entry(self, devfn: int) -> int:
        """Return where a device's PASID entry lies, and write what leads there."""
        if devfn not in self.pasid_tables:
            self.pasid_tables[devfn] = self.page(), self.page()
        directory, table = self.pasid_tables[devfn]
        self.write(directory, table | 1)
        self.write(CONTEXTS + (devfn & 0x7F) * 32, directory | 1, 0)
        return table
