"""What the listener asks of the container: whole pages of the host's, and the right RAM for every range."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from tests.vmm.vfio.recording_host import RecordingHost
from vfio_host.interface.calls import (
    AnyCall,
    Bitmap,
    DmaLoggingStart,
    HwptGetDirtyBitmap,
    IoasMapFile,
    IoasUnmap,
)
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import GuestPhysicalAddress, Iova, RamOffset
from vmm.memory.ram_block import RamBlock
from vmm.memory.sections import Section
from vmm.rules import Rules, RuleSet
from vmm.vfio.attachment import Attachments
from vmm.vfio.listener import IommuAttributes, VfioListener
from vmm.viommu.events import IommuEvent

GIB = 1 << 30
V3 = Rules(set=RuleSet.VFIO_VIOMMU_V3)
WIDTH = IommuAttributes((1 << 48) - 1, dma_translation=True)


@dataclass
class Bench:
    """A listener on a host that records, over RAM that is split by the PCI hole."""

    ram: RamBlock
    host: RecordingHost = field(default_factory=RecordingHost)

    def listener(
        self, rules: Rules | None = None, attributes: IommuAttributes | None = None, name: str = "qat0"
    ) -> VfioListener:
        chosen = rules or Rules()
        attached = Attachments(self.host, self.ram, chosen).attach(
            name, None, type1=False, mediated=False, migration=True
        )
        self.host.take()
        return VfioListener(GuestMemory(self.ram), attached.container, chosen, attributes)


@pytest.fixture
def bench() -> Iterator[Bench]:
    block = RamBlock.create("listener-test", 4 * GIB)
    yield Bench(block)
    block.close()


def asked(listener: VfioListener, host: RecordingHost) -> list[AnyCall]:
    listener.container.flush()
    return host.take()


def unmap(iova: int, size: int, translated: int) -> IommuEvent:
    return IommuEvent(Iova(iova), size - 1, GuestPhysicalAddress(translated), readable=False, writable=False)


@pytest.mark.parametrize(
    ("page", "base", "size", "mapped"),
    [
        (4096, 4096, 3 * 4096, (4096, 3 * 4096)),
        (16384, 4096, 16 * 4096, (16384, 3 * 16384)),
        (65536, 4096, 16 * 4096, None),
        (65536, 0, 65536 + 4096, (0, 65536)),
        (4096, 1 << 63, 4096, None),
    ],
)
def test_only_whole_pages_of_the_host_are_mapped(
    bench: Bench, page: int, base: int, size: int, mapped: tuple[int, int] | None
) -> None:
    bench.host.page_size = page
    listener = bench.listener()
    section = Section(GuestPhysicalAddress(base), RamOffset(base), size)
    listener.ram_added(section)
    found = [(call.iova, call.length) for call in asked(listener, bench.host) if isinstance(call, IoasMapFile)]
    assert found == ([] if mapped is None else [mapped])
    assert [(iova, length) for iova, length, _ in listener.shown()] == found
    listener.ram_removed(section)
    gone = [(call.iova, call.length) for call in asked(listener, bench.host) if isinstance(call, IoasUnmap)]
    assert gone == found


def test_a_section_that_lies_otherwise_in_ram_is_not_mapped(bench: Bench) -> None:
    bench.host.page_size = 16384
    listener = bench.listener()
    listener.ram_added(Section(GuestPhysicalAddress(0), RamOffset(4096), 1 << 20))
    assert asked(listener, bench.host) == []


@pytest.mark.parametrize("on", [True, False])
def test_ram_that_goes_is_asked_for_its_bits_since_patch_7(bench: Bench, *, on: bool) -> None:
    listener = bench.listener(Rules(track_region_del=on))
    bench.host.bits = Bitmap(1 << 19, runs=((5, 1),))
    high = GuestMemory(bench.ram).sections[1]
    listener.ram_added(high)
    listener.start_tracking()
    asked(listener, bench.host)
    listener.ram_removed(high)
    queries = [call for call in asked(listener, bench.host) if isinstance(call, HwptGetDirtyBitmap)]
    assert len(queries) == on
    # RAM above the PCI hole: guest-physical 4 GiB is 2 GiB into the block (semantics 3.6)
    assert listener.container.take_dirty().indexes().tolist() == ([(2 * GIB >> 12) + 5] if on else [])


def test_an_unmap_marks_what_the_event_names(bench: Bench) -> None:
    listener = bench.listener()
    listener.start_tracking()
    bench.host.bits = Bitmap(2, runs=((1, 1),))
    listener.notify(unmap(1 << 40, 8192, 4 * GIB))
    listener.container.flush()
    assert listener.container.take_dirty().indexes().tolist() == [(2 * GIB >> 12) + 1]


def test_a_wide_unmap_marks_from_address_0_on_and_nothing_past_ram(bench: Bench) -> None:
    listener = bench.listener()
    listener.start_tracking()
    asked(listener, bench.host)
    bits = 1 << 32
    bench.host.bits = Bitmap(bits, runs=((0, 1), (GIB * 3 >> 12, 1), (4 * GIB >> 12, 1), (bits - 1, 1)))
    listener.notify(unmap(1 << 44, 1 << 44, 0))
    query, gone = asked(listener, bench.host)
    assert isinstance(query, HwptGetDirtyBitmap)
    assert isinstance(gone, IoasUnmap)
    assert (query.iova, query.length) == (gone.iova, gone.length) == (1 << 44, 1 << 44)
    assert listener.container.take_dirty().indexes().tolist() == [0, 2 * GIB >> 12]


def test_a_mapping_of_what_is_not_ram_is_counted_only(bench: Bench) -> None:
    listener = bench.listener()
    event = IommuEvent(Iova(0), 4095, GuestPhysicalAddress(3 * GIB), readable=True, writable=True)
    listener.notify(event)
    assert asked(listener, bench.host) == []
    assert listener.wrong_targets == 1


RAM_RANGES = ((0, 2 * GIB), (4 * GIB, 2 * GIB))
SPACE = ((0, 1 << 48),)


@pytest.mark.parametrize(
    ("rules", "attributes", "expected"),
    [
        (Rules(), None, RAM_RANGES),
        (V3, None, RAM_RANGES),
        (Rules(), WIDTH, RAM_RANGES),
        (V3, WIDTH, SPACE),
        (V3, replace(WIDTH, max_iova=(1 << 39) - 1), ((0, 1 << 39),)),
        (V3, replace(WIDTH, max_iova=None), RAM_RANGES),
        (V3, replace(WIDTH, dma_translation=False), RAM_RANGES),
        (replace(V3, interrupt_only_viommu_allowed=False), replace(WIDTH, dma_translation=False), SPACE),
        (replace(V3, logger_ranges_cover_iova_space=False), WIDTH, RAM_RANGES),
    ],
)
def test_what_a_device_is_asked_to_log(
    bench: Bench, rules: Rules, attributes: IommuAttributes | None, expected: tuple[tuple[int, int], ...]
) -> None:
    bench.host.logs = frozenset({"nic0"})
    listener = bench.listener(rules, attributes, "nic0")
    listener.start_tracking()
    (start,) = (call for call in asked(listener, bench.host) if isinstance(call, DmaLoggingStart))
    assert start.ranges == expected
