"""iommufd's errnos and life cycles (semantics 3.4), on its objects."""

import errno

import pytest

from tests.vfio_host.bits import ones
from tests.vfio_host.device_streams import refused
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.numbers import U64_MAX, GetDirtyFlags, HwptFlags, MapFlags
from vfio_host.iommufd import Iommufd
from vfio_host.memory_file import MemoryFile

PAGE, MIB = 4096, 1 << 20
BOTH = MapFlags.READ | MapFlags.WRITE
TRACKING = DeviceIommu()
WITHOUT = DeviceIommu(dirty_tracking=False)
MEDIATED = DeviceIommu(mediated=True)


@pytest.fixture
def memory() -> MemoryFile:
    return shared_memory(64 * MIB)


@pytest.fixture
def context() -> Iommufd:
    return Iommufd()


def test_mappings_appear_in_every_table_of_the_address_space(context: Iommufd, memory: MemoryFile) -> None:
    ioas = context.ioas_alloc()
    context.map(ioas, BOTH, memory, offset=0, iova=MIB, length=MIB)
    first = context.attach(context.bind(TRACKING), ioas)
    dev = context.bind(TRACKING)
    second = context.attach(dev, context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, dev, ioas))
    context.map(ioas, BOTH, memory, offset=MIB, iova=2 * MIB, length=MIB)
    for table in (first, second):
        table.write(2 * MIB - 2, b"abcd")
        assert table.read(2 * MIB - 2, 4) == b"abcd"
    assert context.unmap(ioas, 0, 4 * MIB) == 2 * MIB
    assert (len(first), len(second)) == (0, 0)


def test_each_table_has_dirty_bits_of_its_own(context: Iommufd, memory: MemoryFile) -> None:
    ioas = context.ioas_alloc()
    context.map(ioas, BOTH, memory, offset=0, iova=0, length=MIB)
    devices = [context.bind(TRACKING) for _ in range(2)]
    hwpts = [context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, device, ioas) for device in devices]
    for hwpt in hwpts:
        context.set_dirty_tracking(hwpt, enable=True)
    context.attach(devices[0], hwpts[0]).write(0, b"x")
    found = [ones(context.dirty_bitmap(hwpt, GetDirtyFlags.NONE, 0, MIB, PAGE)) for hwpt in hwpts]
    assert found == [[0], []]
    assert [context.table_of(hwpt).flushes for hwpt in hwpts] == [1, 1]


def test_ranges_narrow_with_tables_and_devices_and_widen_again(context: Iommufd) -> None:
    ioas = context.ioas_alloc()
    dev = context.bind(TRACKING)
    hwpt = context.hwpt_alloc(HwptFlags.NONE, dev, ioas)
    assert context.iova_ranges(ioas).ranges == ((0, (1 << 48) - 1),)
    context.attach(dev, hwpt)
    assert context.iova_ranges(ioas).ranges == ((0, 0xFEDFFFFF), (0xFEF00000, (1 << 48) - 1))
    context.detach(dev)
    context.destroy(hwpt)
    assert context.iova_ranges(ioas).ranges == ((0, U64_MAX),)


@pytest.mark.parametrize(
    ("flags", "iova", "length", "offset", "number"),
    [
        (MapFlags(0), 0, PAGE, 0, errno.EINVAL),
        (BOTH, 1, PAGE, 0, errno.EINVAL),
        (BOTH, 0, 0, 0, errno.EINVAL),
        (BOTH, 0, PAGE, 100, errno.EINVAL),
        (BOTH, 0, 128 * MIB, 0, errno.EINVAL),
        (BOTH, 0, PAGE, 64 * MIB, errno.EINVAL),
        (BOTH | MapFlags.VADDR, 0, PAGE, 0, errno.EOPNOTSUPP),
        (MapFlags(9), 0, PAGE, 0, errno.EOPNOTSUPP),
        (BOTH, U64_MAX + 1 - PAGE, 2 * PAGE, 0, errno.EOVERFLOW),
        (BOTH, 0xFEE00000, PAGE, 0, errno.EINVAL),
        (BOTH, 1 << 48, PAGE, 0, errno.EINVAL),
        (BOTH, 0x10000000, PAGE, 0, errno.EEXIST),
    ],
)
def test_map_errnos(
    context: Iommufd, memory: MemoryFile, *, flags: MapFlags, iova: int, length: int, offset: int, number: int
) -> None:
    ioas = context.ioas_alloc()
    context.attach(context.bind(TRACKING), ioas)
    context.map(ioas, BOTH, memory, offset=0, iova=0x10000000, length=MIB)
    with refused(number):
        context.map(ioas, flags, memory, offset=offset, iova=iova, length=length)
    assert context.unmap(ioas, 0, U64_MAX) == MIB


def test_a_mapping_in_the_interrupt_window_keeps_devices_out(context: Iommufd, memory: MemoryFile) -> None:
    ioas = context.ioas_alloc()
    context.map(ioas, BOTH, memory, offset=0, iova=0xFEE00000, length=MIB)
    with refused(errno.EADDRINUSE):
        context.attach(context.bind(TRACKING), ioas)


def test_unmap_errnos(context: Iommufd, memory: MemoryFile) -> None:
    ioas = context.ioas_alloc()
    assert context.unmap(ioas, 0, U64_MAX) == 0
    context.map(ioas, BOTH, memory, offset=0, iova=MIB, length=MIB)
    context.map(ioas, BOTH, memory, offset=MIB, iova=2 * MIB, length=MIB)
    with refused(errno.ENOENT):
        context.unmap(ioas, 8 * MIB, MIB)
    with refused(errno.ENOENT):
        context.unmap(ioas, MIB + PAGE, 8 * MIB)
    with refused(errno.EOVERFLOW):
        context.unmap(ioas, PAGE, U64_MAX)
    with refused(errno.EINVAL):
        context.unmap(ioas, 0, 0)
    with refused(errno.ENOENT):
        context.unmap(99, 0, PAGE)
    assert context.unmap(ioas, 0, 8 * MIB) == 2 * MIB


@pytest.mark.parametrize(
    ("flags", "iova", "length", "page", "number"),
    [
        (GetDirtyFlags(2), 0, MIB, PAGE, errno.EOPNOTSUPP),
        (GetDirtyFlags.NONE, U64_MAX + 1 - PAGE, 2 * PAGE, PAGE, errno.EOVERFLOW),
        (GetDirtyFlags.NONE, 100, MIB, PAGE, errno.EINVAL),
        (GetDirtyFlags.NONE, 0, 100, PAGE, errno.EINVAL),
        (GetDirtyFlags.NONE, 0, 0, PAGE, errno.EINVAL),
        (GetDirtyFlags.NONE, PAGE, 0, PAGE, errno.EOVERFLOW),
        (GetDirtyFlags.NONE, 0, MIB, 0, errno.EINVAL),
        (GetDirtyFlags.NONE, 0, MIB, 3000, errno.EINVAL),
        (GetDirtyFlags.NONE, PAGE, MIB, 2 * MIB, errno.EINVAL),
    ],
)
def test_query_errnos(
    context: Iommufd, *, flags: GetDirtyFlags, iova: int, length: int, page: int, number: int
) -> None:
    ioas = context.ioas_alloc()
    hwpt = context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, context.bind(TRACKING), ioas)
    with refused(number):
        context.dirty_bitmap(hwpt, flags, iova, length, page)


def test_tracking_needs_a_table_that_was_allocated_for_it(context: Iommufd) -> None:
    ioas = context.ioas_alloc()
    plain = context.hwpt_alloc(HwptFlags.NONE, context.bind(TRACKING), ioas)
    with refused(errno.EOPNOTSUPP):
        context.set_dirty_tracking(plain, enable=True)
    with refused(errno.EOPNOTSUPP):
        context.dirty_bitmap(plain, GetDirtyFlags.NONE, 0, PAGE, PAGE)
    with refused(errno.EINVAL):
        context.set_dirty_tracking(ioas, enable=True)
    with refused(errno.ENOENT):
        context.set_dirty_tracking(99, enable=True)
    with refused(errno.EOPNOTSUPP):
        context.hwpt_alloc(HwptFlags(4), context.bind(TRACKING), ioas)
    with refused(errno.EOPNOTSUPP):
        context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, context.bind(WITHOUT), ioas)


def test_attach_says_einval_for_a_table_that_does_not_suit_so_the_next_is_tried(context: Iommufd) -> None:
    ioas = context.ioas_alloc()
    tracking = context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, context.bind(TRACKING), ioas)
    wide = context.hwpt_alloc(HwptFlags.NONE, context.bind(DeviceIommu(address_width=57)), ioas)
    device = context.bind(WITHOUT)
    for unsuitable in (tracking, wide):
        with refused(errno.EINVAL):
            context.attach(device, unsuitable)
    own = context.attach(device, context.hwpt_alloc(HwptFlags.NONE, device, ioas))
    with refused(errno.EINVAL):
        context.attach(device, tracking)
    with refused(errno.ENOENT):
        context.attach(device, 99)
    assert len(own) == 0
    assert context.hw_info(device) == 0


def test_a_mediated_device_has_no_page_table_of_its_own(context: Iommufd, memory: MemoryFile) -> None:
    ioas = context.ioas_alloc()
    hwpt = context.hwpt_alloc(HwptFlags.NONE, context.bind(TRACKING), ioas)
    device = context.bind(MEDIATED)
    with refused(errno.ENOENT):
        context.hw_info(device)
    with refused(errno.ENOENT):
        context.hwpt_alloc(HwptFlags.NONE, device, ioas)
    with refused(errno.EINVAL):
        context.attach(device, hwpt)
    context.map(ioas, BOTH, memory, offset=0, iova=0, length=PAGE)
    assert context.attach(device, ioas).read(0, 4) == bytes(4)


def test_destroy_refuses_what_is_used(context: Iommufd) -> None:
    ioas = context.ioas_alloc()
    device = context.bind(TRACKING)
    hwpt = context.hwpt_alloc(HwptFlags.NONE, device, ioas)
    context.attach(device, hwpt)
    for used in (ioas, hwpt, device):
        with refused(errno.EBUSY):
            context.destroy(used)
    context.unbind(device)
    context.destroy(hwpt)
    context.destroy(ioas)
    with refused(errno.ENOENT):
        context.destroy(ioas)
    with refused(errno.ENOENT):
        context.destroy(device)


def test_binding_needs_interrupt_remapping(context: Iommufd) -> None:
    with refused(errno.EPERM):
        context.bind(DeviceIommu(interrupt_remapping=False))
