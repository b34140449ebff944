"""type1's errnos and its tracker that says "all of it" (semantics 3.2, 3.3; P3), on its object."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import count_ones
from tests.vfio_host.device_streams import refused
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import dense
from vfio_host.interface.numbers import U64_MAX, DirtyPagesFlags, MapFlags, UnmapFlags
from vfio_host.memory_file import UserAddresses
from vfio_host.type1 import MAX_MAPPING_PAGES, MAX_MAPPINGS, Type1Container

PAGE, MIB, TIB = 4096, 1 << 20, 1 << 40
BOTH = MapFlags.READ | MapFlags.WRITE
QUERY = DirtyPagesFlags.GET_BITMAP


def container(size: int = 16 * MIB, *, mediated: bool = False) -> Type1Container:
    addresses = UserAddresses()
    addresses.register(0, size, shared_memory(size))
    made = Type1Container(addresses)
    made.add_group("dev0", DeviceIommu(mediated=mediated))
    made.set_iommu()
    return made


def bits(made: Type1Container, pages: int) -> str:
    bitmap = made.dirty_pages(QUERY, 0, pages * PAGE, pgsize=PAGE, bitmap_size=1 << 20)
    assert bitmap is not None
    return f"{int.from_bytes(dense(bitmap), 'little'):0{pages}b}"[::-1]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 20)), max_size=12))
def test_p3_mapped_pages_are_dirty_for_ever_and_holes_never(wanted: list[tuple[int, int]]) -> None:
    made, expected = container(), ["0"] * 128
    for first, count in wanted:
        if "1" not in expected[first : first + count]:
            made.map(BOTH, first * PAGE, first * PAGE, count * PAGE)
            expected[first : first + count] = ["1"] * count
    made.dirty_pages(DirtyPagesFlags.START)
    assert bits(made, 128) == "".join(expected)
    assert bits(made, 128) == "".join(expected)
    unmapped = made.unmap(UnmapFlags.GET_DIRTY_BITMAP, 0, 128 * PAGE, pgsize=PAGE, bitmap_size=16)
    assert unmapped.size == expected.count("1") * PAGE
    assert count_ones(unmapped.bitmap) == expected.count("1")
    assert bits(made, 128) == "0" * 128


def test_with_mediated_devices_only_what_was_written_is_dirty() -> None:
    made = container(mediated=True)
    made.map(BOTH, 0, 0, MIB)
    made.dirty_pages(DirtyPagesFlags.START)
    assert made.table is not None
    made.table.write(5 * PAGE, b"x")
    assert bits(made, 256) == "00000100".ljust(256, "0")
    assert bits(made, 256) == "0" * 256


@pytest.mark.parametrize(
    ("flags", "vaddr", "iova", "size", "number"),
    [
        (MapFlags(0), 0, 0, PAGE, errno.EINVAL),
        (BOTH | MapFlags.VADDR, 0, 0, PAGE, errno.EINVAL),
        (MapFlags(9), 0, 0, PAGE, errno.EINVAL),
        (BOTH, 0, 0, 0, errno.EINVAL),
        (BOTH, 1, 0, PAGE, errno.EINVAL),
        (BOTH, 0, 1, PAGE, errno.EINVAL),
        (BOTH, 0, U64_MAX + 1 - PAGE, 2 * PAGE, errno.EINVAL),
        (BOTH, 0, 0xFEE00000, PAGE, errno.EINVAL),
        (BOTH, 0, 1 << 48, PAGE, errno.EINVAL),
        (BOTH, 0, MIB, PAGE, errno.EEXIST),
        (BOTH, 15 * MIB, 4 * MIB, 2 * MIB, errno.EFAULT),
    ],
)
def test_map_errnos(flags: MapFlags, vaddr: int, iova: int, size: int, number: int) -> None:
    made = container()
    made.map(BOTH, 0, MIB, MIB)
    with refused(number):
        made.map(flags, vaddr, iova, size)
    assert made.info().dma_avail == MAX_MAPPINGS - 1


def test_mappings_run_out() -> None:
    made = container()
    for index in range(MAX_MAPPINGS):
        made.map(BOTH, 0, index * 2 * PAGE, PAGE)
    with refused(errno.ENOSPC):
        made.map(BOTH, 0, MAX_MAPPINGS * 2 * PAGE, PAGE)
    with refused(errno.EEXIST):
        made.map(BOTH, 0, 0, PAGE)
    assert made.unmap(UnmapFlags.ALL, 0, 0).size == MAX_MAPPINGS * PAGE
    assert made.info().dma_avail == MAX_MAPPINGS


@pytest.mark.parametrize(
    ("flags", "iova", "size", "pgsize", "bitmap"),
    [
        (UnmapFlags.VADDR | UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB, PAGE, 32),
        (UnmapFlags.VADDR, MIB, MIB - PAGE, 0, 0),
        (UnmapFlags.VADDR | UnmapFlags.ALL, 0, MIB, 0, 0),
        (UnmapFlags(8), 0, MIB, 0, 0),
        (UnmapFlags.ALL, MIB, 0, 0, 0),
        (UnmapFlags.ALL, 0, MIB, 0, 0),
        (UnmapFlags.ALL | UnmapFlags.GET_DIRTY_BITMAP, 0, 0, PAGE, 8),
        (UnmapFlags.NONE, 0, 0, 0, 0),
        (UnmapFlags.NONE, 0, 100, 0, 0),
        (UnmapFlags.NONE, PAGE, U64_MAX, 0, 0),
        (UnmapFlags.NONE, MIB, MIB - PAGE, 0, 0),
        (UnmapFlags.NONE, MIB + PAGE, MIB, 0, 0),
        (UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB, 2 * MIB, 32),
        (UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB, PAGE, 24),
        (UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB, PAGE, (1 << 28) + 8),
        (UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB // 2, PAGE, 32),
    ],
)
def test_unmap_errnos(flags: UnmapFlags, iova: int, size: int, pgsize: int, bitmap: int) -> None:
    made = container()
    made.map(BOTH, 0, MIB, MIB)
    made.dirty_pages(DirtyPagesFlags.START)
    with refused(errno.EINVAL):
        made.unmap(flags, iova, size, pgsize=pgsize, bitmap_size=bitmap)
    made.dirty_pages(DirtyPagesFlags.STOP)
    with refused(errno.EINVAL):
        made.unmap(UnmapFlags.GET_DIRTY_BITMAP, MIB, MIB, pgsize=PAGE, bitmap_size=32)
    assert made.unmap(UnmapFlags.NONE, 0, 4 * MIB).size == MIB


@pytest.mark.parametrize("flags", [0, 3, 5, 6, 7, 8])
def test_exactly_one_flag(flags: int) -> None:
    with refused(errno.EINVAL):
        container().dirty_pages(DirtyPagesFlags(flags), 0, PAGE, pgsize=PAGE, bitmap_size=8)


def test_a_mapping_too_large_to_track_stops_start_and_while_tracking_map() -> None:
    size = (MAX_MAPPING_PAGES + 1) * PAGE
    made = container(size)
    made.map(BOTH, 0, 1 << 44, size)
    with refused(errno.EINVAL):
        made.dirty_pages(DirtyPagesFlags.START)
    made.unmap(UnmapFlags.ALL, 0, 0)
    made.dirty_pages(DirtyPagesFlags.START)
    with refused(errno.EINVAL):
        made.map(BOTH, 0, 1 << 44, size)
    made.map(BOTH, 0, 1 << 44, size - PAGE)


def test_p4_the_largest_bitmap_is_that_of_8_tib() -> None:
    made = container()
    made.dirty_pages(DirtyPagesFlags.START)
    assert made.dirty_pages(QUERY, 0, 8 * TIB, pgsize=PAGE, bitmap_size=1 << 28) == Bitmap(bits=1 << 31)
    with refused(errno.EINVAL):
        made.dirty_pages(QUERY, 0, 8 * TIB + PAGE, pgsize=PAGE, bitmap_size=(1 << 28) + 8)


def test_nothing_works_before_set_iommu_and_everything_goes_with_the_last_group() -> None:
    made = Type1Container(UserAddresses())
    with refused(errno.EINVAL):
        made.set_iommu()
    made.add_group("dev0", DeviceIommu())
    with refused(errno.EINVAL):
        made.info()
    made.set_iommu()
    with refused(errno.EINVAL):
        made.set_iommu()
    with refused(errno.EPERM):
        made.add_group("dev1", DeviceIommu(interrupt_remapping=False))
    made.remove_group("dev0")
    assert made.table is None
