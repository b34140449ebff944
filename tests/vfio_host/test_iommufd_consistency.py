"""Any sequence of iommufd calls: errnos only, and every table of an address space holds the same mappings (P2)."""

import contextlib
import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.vfio_host.shared_memory import shared_memory as memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.errors import CallRefused, DmaFault
from vfio_host.interface.numbers import U64_MAX, GetDirtyFlags, HwptFlags, MapFlags
from vfio_host.io_page_table import IoPageTable
from vfio_host.iommufd import Hwpt, Ioas, Iommufd

PAGE, MIB = 4096, 1 << 20
BOTH = MapFlags.READ | MapFlags.WRITE
IOMMUS = (
    DeviceIommu(),
    DeviceIommu(dirty_tracking=False),
    DeviceIommu(mediated=True),
    DeviceIommu(address_width=39),
    DeviceIommu(leaf_size=2 * MIB),
    DeviceIommu(second_stage=False),
)
IOVAS = st.sampled_from([0, PAGE, MIB, 2 * MIB, 0xFEDFF000, 0xFEE00000, (1 << 39) - MIB, 1 << 47, U64_MAX - 4095])
LENGTHS = st.sampled_from([0, PAGE, 3 * PAGE, MIB, 2 * MIB, 1 << 39, U64_MAX])
IDS = st.integers(0, 14)


def shape(table: IoPageTable) -> list[tuple[int, int, int, bool, bool]]:
    return [(m.iova, m.length, m.offset, m.readable, m.writable) for m in table.overlapping(0, U64_MAX + 1)]


class Calls(RuleBasedStateMachine):
    """The calls of one iommufd, by ids that may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.context, self.memory = Iommufd(), memory(4 * MIB)
        self.context.ioas_alloc()
        self.devices = {self.context.bind(iommu) for iommu in IOMMUS}

    @rule()
    def alloc(self) -> None:
        self.context.ioas_alloc()

    @rule(flags=st.sampled_from(HwptFlags), device=IDS, ioas=IDS)
    def hwpt_alloc(self, flags: HwptFlags, device: int, ioas: int) -> None:
        with contextlib.suppress(CallRefused):
            self.context.hwpt_alloc(flags, device, ioas)

    @rule(device=IDS, table=IDS, iova=IOVAS)
    def attach_and_write(self, device: int, table: int, iova: int) -> None:
        with contextlib.suppress(CallRefused, DmaFault):
            self.context.attach(device, table).write(iova, b"x" * 5000)

    @rule(device=IDS)
    def detach(self, device: int) -> None:
        with contextlib.suppress(CallRefused):
            self.context.detach(device)

    @rule(number=IDS)
    def destroy(self, number: int) -> None:
        with contextlib.suppress(CallRefused):
            self.context.destroy(number)

    @rule(ioas=IDS, flags=st.integers(0, 4), offset=st.sampled_from([0, PAGE, 2 * MIB]), iova=IOVAS, length=LENGTHS)
    def map(self, ioas: int, flags: int, offset: int, iova: int, length: int) -> None:
        with contextlib.suppress(CallRefused):
            self.context.map(ioas, MapFlags(flags), self.memory, offset=offset, iova=iova, length=length)

    @rule(ioas=IDS, iova=IOVAS, length=LENGTHS)
    def unmap(self, ioas: int, iova: int, length: int) -> None:
        with contextlib.suppress(CallRefused):
            self.context.unmap(ioas, iova, length)

    @rule(hwpt=IDS, enable=st.booleans())
    def track(self, hwpt: int, *, enable: bool) -> None:
        with contextlib.suppress(CallRefused):
            self.context.set_dirty_tracking(hwpt, enable=enable)

    @rule(hwpt=IDS, flags=st.sampled_from(GetDirtyFlags), iova=IOVAS, length=LENGTHS)
    def query(self, hwpt: int, flags: GetDirtyFlags, iova: int, length: int) -> None:
        with contextlib.suppress(CallRefused):
            assert self.context.dirty_bitmap(hwpt, flags, iova, length, PAGE).bits == length // PAGE

    @invariant()
    def every_table_of_an_address_space_holds_the_same(self) -> None:
        for item in self.context._objects.values():
            if isinstance(item, Ioas):
                assert all(shape(hwpt.table) == shape(item.shape) for hwpt in item.hwpts)
            if isinstance(item, Hwpt):
                assert item in item.ioas.hwpts


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=80, stateful_step_count=30)


def test_p2_a_query_that_fails_leaves_the_unmap_to_work() -> None:
    context = Iommufd()
    ioas, device = context.ioas_alloc(), context.bind(DeviceIommu())
    hwpt = context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, device, ioas)
    table = context.attach(device, hwpt)
    context.map(ioas, BOTH, memory(MIB), offset=0, iova=0, length=MIB)
    with pytest.raises(CallRefused, match=errno.errorcode[errno.EINVAL]):
        context.dirty_bitmap(hwpt, GetDirtyFlags.NO_CLEAR, 0, MIB, 3000)
    assert context.unmap(ioas, 0, MIB) == MIB
    assert len(table) == 0
    with pytest.raises(DmaFault):
        table.write(0, b"x")


def test_devices_of_all_kinds_share_one_address_space() -> None:
    """Each finds the table that suits it by trying; a mapping reaches all of them (semantics 1.4)."""
    context = Iommufd()
    ioas = context.ioas_alloc()
    found: list[int] = []
    tables = []
    for iommu in (DeviceIommu(), DeviceIommu(dirty_tracking=False), DeviceIommu(), DeviceIommu(dirty_tracking=False)):
        device = context.bind(iommu)
        for hwpt in found:
            with contextlib.suppress(CallRefused):
                tables.append(context.attach(device, hwpt))
                break
        else:
            flags = HwptFlags.DIRTY_TRACKING if iommu.tracks else HwptFlags.NONE
            found.append(context.hwpt_alloc(flags, device, ioas))
            tables.append(context.attach(device, found[-1]))
    mediated = context.attach(context.bind(DeviceIommu(mediated=True)), ioas)
    context.map(ioas, BOTH, memory(MIB), offset=0, iova=MIB, length=MIB)
    assert len(found) == 2
    assert tables[0] is tables[2]
    assert all(table.read(MIB, 4) == bytes(4) for table in (*tables, mediated))
    context.set_dirty_tracking(found[0], enable=True)
    with pytest.raises(CallRefused, match=errno.errorcode[errno.EOPNOTSUPP]):
        context.set_dirty_tracking(found[1], enable=True)
    with pytest.raises(CallRefused, match="EBUSY"):
        context.destroy(ioas)


def test_a_mediated_device_narrows_nothing_and_keeps_its_address_space_in_use() -> None:
    context = Iommufd()
    ioas, device = context.ioas_alloc(), context.bind(DeviceIommu(mediated=True))
    context.attach(device, ioas)
    assert context.iova_ranges(ioas).ranges == ((0, U64_MAX),)
    with pytest.raises(CallRefused, match="EBUSY"):
        context.destroy(ioas)
    context.detach(device)
    context.destroy(ioas)
