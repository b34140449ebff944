"""Several groups in one type1 container, and hosts of other page sizes (semantics 3.2, 3.3; P4)."""

import errno

import pytest

from tests.vfio_host.bits import ones
from tests.vfio_host.device_streams import refused
from tests.vfio_host.shared_memory import shared_memory as memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.numbers import U64_MAX, DirtyPagesFlags, MapFlags, UnmapFlags
from vfio_host.memory_file import UserAddresses
from vfio_host.type1 import MAX_MAPPING_PAGES, Type1Container

PAGE, MIB, TIB = 4096, 1 << 20, 1 << 40
BOTH = MapFlags.READ | MapFlags.WRITE
START, STOP, QUERY = DirtyPagesFlags.START, DirtyPagesFlags.STOP, DirtyPagesFlags.GET_BITMAP
HARDWARE, MEDIATED, NARROW = DeviceIommu(), DeviceIommu(mediated=True), DeviceIommu(address_width=39)


def container(*groups: DeviceIommu, size: int = 16 * MIB, page_size: int = PAGE) -> Type1Container:
    addresses = UserAddresses()
    addresses.register(0, size, memory(size))
    made = Type1Container(addresses, page_size)
    for number, iommu in enumerate(groups):
        made.add_group(f"dev{number}", iommu)
    made.set_iommu()
    return made


def dirty(made: Type1Container, pages: int, page_size: int = PAGE) -> list[int]:
    return ones(made.dirty_pages(QUERY, 0, pages * page_size, pgsize=page_size, bitmap_size=1 << 28))


def test_one_device_of_hardware_makes_everything_dirty_and_when_it_leaves_once_more() -> None:
    made = container(MEDIATED, HARDWARE)
    made.map(BOTH, 0, 0, 8 * PAGE)
    made.dirty_pages(START)
    assert dirty(made, 8) == dirty(made, 8) == list(range(8))
    made.remove_group("dev1")
    assert dirty(made, 8) == list(range(8))
    assert dirty(made, 8) == []
    assert made.table is not None
    made.table.write(5 * PAGE, b"x")
    unmapped = made.unmap(UnmapFlags.GET_DIRTY_BITMAP, 0, 8 * PAGE, pgsize=PAGE, bitmap_size=8)
    assert ones(unmapped.bitmap) == [5]


def test_one_device_of_hardware_that_comes_makes_everything_dirty() -> None:
    made = container(MEDIATED)
    made.map(BOTH, 0, 0, 8 * PAGE)
    made.dirty_pages(START)
    assert dirty(made, 8) == []
    made.add_group("dev1", HARDWARE)
    assert dirty(made, 8) == list(range(8))


def test_the_narrowest_device_sets_the_ranges_and_must_reach_what_is_mapped() -> None:
    made = container(HARDWARE)
    made.map(BOTH, 0, 1 << 40, PAGE)
    with refused(errno.EINVAL):
        made.add_group("dev1", NARROW)
    made.unmap(UnmapFlags.ALL, 0, 0)
    made.add_group("dev1", NARROW)
    assert made.info().iova_ranges[-1] == (0xFEF00000, (1 << 39) - 1)
    with refused(errno.EINVAL):
        made.map(BOTH, 0, 1 << 40, PAGE)
    made.remove_group("dev1")
    made.map(BOTH, 0, 1 << 40, PAGE)


def test_mediated_devices_alone_reach_everything_by_any_page_size() -> None:
    made = container(MEDIATED)
    info = made.info()
    assert info.iova_ranges == ((0, U64_MAX),)
    assert info.iova_pgsizes == U64_MAX + 1 - PAGE
    made.map(BOTH, 0, 0xFEE00000, PAGE)
    with refused(errno.EINVAL):
        made.add_group("dev1", HARDWARE)


def test_a_stop_forgets_and_a_second_start_changes_nothing() -> None:
    made = container(MEDIATED)
    made.map(BOTH, 0, 0, 8 * PAGE)
    made.dirty_pages(START)
    assert made.table is not None
    made.table.write(0, b"x")
    made.dirty_pages(START)
    assert dirty(made, 8) == [0]
    made.table.write(0, b"x")
    made.dirty_pages(STOP)
    made.dirty_pages(START)
    assert dirty(made, 8) == []


def test_a_query_that_ends_with_the_address_space_wraps_in_the_kernel() -> None:
    made = container(MEDIATED)
    made.dirty_pages(START)
    with refused(errno.EINVAL):
        made.dirty_pages(QUERY, U64_MAX + 1 - PAGE, PAGE, pgsize=PAGE, bitmap_size=8)
    last = made.unmap(UnmapFlags.GET_DIRTY_BITMAP, U64_MAX + 1 - PAGE, PAGE, pgsize=PAGE, bitmap_size=8)
    assert last.bitmap == Bitmap(bits=1)


@pytest.mark.parametrize(
    ("page", "sizes", "largest"),
    [(4 << 10, 0x40201000, 8 * TIB), (16 << 10, 0x2004000, 32 * TIB), (64 << 10, 0x20010000, 128 * TIB)],
)
def test_p4_the_largest_bitmap_grows_with_the_page_size(page: int, sizes: int, largest: int) -> None:
    made = container(HARDWARE, page_size=page)
    info = made.info()
    assert (info.iova_pgsizes, info.migration_pgsize_bitmap) == (sizes, page)
    assert info.max_dirty_bitmap_size * 8 * info.migration_pgsize_bitmap == largest
    made.map(BOTH, 0, page, page)
    made.dirty_pages(START)
    found = made.dirty_pages(QUERY, 0, largest, pgsize=page, bitmap_size=1 << 28)
    assert found == Bitmap(bits=1 << 31, runs=((1, 1),))
    with refused(errno.EINVAL):
        made.dirty_pages(QUERY, 0, largest + page, pgsize=page, bitmap_size=(1 << 28) + 8)
    with refused(errno.EINVAL):
        made.unmap(UnmapFlags.GET_DIRTY_BITMAP, 0, largest + page, pgsize=page, bitmap_size=(1 << 28) + 8)
    unmapped = made.unmap(UnmapFlags.GET_DIRTY_BITMAP, 0, largest, pgsize=page, bitmap_size=1 << 28)
    assert unmapped == type(unmapped)(size=page, bitmap=Bitmap(bits=1 << 31, runs=((1, 1),)))


@pytest.mark.parametrize("page", [16 << 10, 64 << 10])
def test_nothing_smaller_than_a_page_of_the_host(page: int) -> None:
    made = container(HARDWARE, page_size=page)
    for vaddr, iova, size in [(PAGE, 0, page), (0, PAGE, page), (0, 0, PAGE)]:
        with refused(errno.EINVAL):
            made.map(BOTH, vaddr, iova, size)
    with refused(errno.EINVAL):
        made.unmap(UnmapFlags.NONE, 0, PAGE)
    made.dirty_pages(START)
    with refused(errno.EINVAL):
        made.dirty_pages(QUERY, 0, page, pgsize=PAGE, bitmap_size=64)


def test_a_mapping_of_too_many_pages_is_one_of_more_bytes_where_pages_are_larger() -> None:
    page = 16 << 10
    size = (MAX_MAPPING_PAGES + 1) * PAGE
    made = container(HARDWARE, size=size, page_size=page)
    made.map(BOTH, 0, 1 << 44, size)
    made.dirty_pages(START)
    found = made.dirty_pages(QUERY, 1 << 44, size, pgsize=page, bitmap_size=1 << 28)
    assert found == Bitmap(bits=size // page, runs=((0, size // page),))


def test_a_terabyte_that_is_mapped_is_one_run_and_an_answer_over_the_limit_takes_nothing_away() -> None:
    made = container(HARDWARE, size=TIB)
    made.map(BOTH, 0, TIB, TIB)
    made.map(BOTH, 0, 0, PAGE)
    made.dirty_pages(START)
    with refused(errno.ENOMEM):
        made.unmap(UnmapFlags.GET_DIRTY_BITMAP, TIB, TIB, pgsize=PAGE, bitmap_size=1 << 28, limit=10)
    with refused(errno.ENOMEM):
        made.dirty_pages(QUERY, TIB, TIB, pgsize=PAGE, bitmap_size=1 << 28, limit=10)
    unmapped = made.unmap(UnmapFlags.GET_DIRTY_BITMAP, TIB, TIB, pgsize=PAGE, bitmap_size=1 << 28)
    assert unmapped.bitmap == Bitmap(bits=1 << 28, runs=((0, 1 << 28),))
    assert unmapped.size == TIB
