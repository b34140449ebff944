"""GET_DIRTY_BITMAP as Linux does it: until the first hole, by leaves, with its flushes; and what an answer takes."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from tests.vfio_host.device_streams import refused
from tests.vfio_host.shared_memory import shared_memory as memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import encoded_room
from vfio_host.interface.numbers import U64_MAX, GetDirtyFlags, HwptFlags, MapFlags
from vfio_host.io_page_table import IoPageTable
from vfio_host.iommufd import Iommufd

PAGE, MIB, TIB = 4096, 1 << 20, 1 << 40
BOTH = MapFlags.READ | MapFlags.WRITE
CLEAR, KEEP = GetDirtyFlags.NONE, GetDirtyFlags.NO_CLEAR


class Tracked:
    """An address space with one device on a table that tracks."""

    def __init__(self, *ranges: tuple[int, int], leaf_size: int = PAGE, page_size: int = PAGE) -> None:
        self.context = Iommufd(page_size)
        self.ioas = self.context.ioas_alloc()
        device = self.context.bind(DeviceIommu(leaf_size=leaf_size))
        self.hwpt = self.context.hwpt_alloc(HwptFlags.DIRTY_TRACKING, device, self.ioas)
        self.table: IoPageTable = self.context.attach(device, self.hwpt)
        for iova, length in ranges:
            self.context.map(self.ioas, BOTH, memory(length), offset=0, iova=iova, length=length)
        self.context.set_dirty_tracking(self.hwpt, enable=True)

    def query(
        self,
        iova: int,
        length: int,
        flags: GetDirtyFlags = CLEAR,
        *,
        page_size: int = PAGE,
        limit: int | None = None,
    ) -> Bitmap:
        return self.context.dirty_bitmap(self.hwpt, flags, iova, length, page_size, limit=limit)


def test_a_query_ends_at_the_first_hole_and_says_nothing_of_it() -> None:
    tracked = Tracked((0, MIB), (MIB, MIB), (3 * MIB, MIB))
    for iova in (0, 2 * MIB - 1, 3 * MIB):
        tracked.table.write(iova, b"x")
    assert ones(tracked.query(0, 4 * MIB)) == [0, 511]
    assert ones(tracked.query(2 * MIB, 2 * MIB)) == []
    assert ones(tracked.query(3 * MIB, MIB)) == [0]


def test_while_tracking_is_off_everything_is_clean_and_enabling_clears() -> None:
    tracked = Tracked((0, MIB))
    tracked.table.write(0, b"x")
    tracked.context.set_dirty_tracking(tracked.hwpt, enable=False)
    assert ones(tracked.query(0, MIB)) == []
    tracked.context.set_dirty_tracking(tracked.hwpt, enable=True)
    assert ones(tracked.query(0, MIB)) == []
    tracked.table.write(0, b"x")
    tracked.context.set_dirty_tracking(tracked.hwpt, enable=True)
    assert ones(tracked.query(0, MIB)) == []


def test_v11_a_query_that_clears_costs_one_flush_and_one_that_does_not_costs_none() -> None:
    tracked = Tracked((0, MIB))
    tracked.table.write(0x5000, b"x" * 8192)
    first = tracked.query(0, MIB, KEEP)
    assert ones(first) == [5, 6]
    assert tracked.query(0, MIB, KEEP) == first
    assert tracked.table.flushes == 0
    assert tracked.query(0, MIB) == first
    assert tracked.table.flushes == 1
    assert tracked.query(0, MIB) == Bitmap(bits=256)


def test_v12_a_whole_section_is_queried_without_clearing_then_unmapped() -> None:
    base, size = 0x1_0000_0000, 4 << 30
    tracked = Tracked((base, size))
    tracked.table.write(base + size - 1, b"x")
    assert ones(tracked.query(base, size, KEEP)) == [size // PAGE - 1]
    assert tracked.context.unmap(tracked.ioas, base, size) == size
    assert tracked.table.flushes == 0
    assert ones(tracked.query(base, size, KEEP)) == []


@pytest.mark.parametrize(("leaf", "expected"), [(1 << 30, 262144), (2 * MIB, 512), (PAGE, 1)])
def test_v10_the_largest_leaf_sets_the_precision(leaf: int, expected: int) -> None:
    tracked = Tracked((1 << 30, 1 << 30), leaf_size=leaf)
    tracked.table.write((1 << 30) + 0x212345, b"x")
    found = ones(tracked.query(1 << 30, 1 << 30))
    assert len(found) == expected
    assert 0x212 in found


def test_8_tib_without_holes_that_was_not_written_is_nothing_and_one_page_of_it_is_a_byte() -> None:
    tracked = Tracked((TIB, 8 * TIB))
    assert tracked.query(TIB, 8 * TIB) == Bitmap(bits=1 << 31)
    tracked.table.write(5 * TIB, b"x")
    assert tracked.query(TIB, 8 * TIB) == Bitmap(bits=1 << 31, parts=((4 * TIB // PAGE // 8, b"\x01"),))


def test_an_answer_over_the_limit_is_refused_and_nothing_is_cleared() -> None:
    tracked = Tracked((TIB, TIB))
    for page in range(0, 4_096_000, 4096):
        tracked.table.write(TIB + page * PAGE, b"x")
    with refused(errno.ENOMEM):
        tracked.query(TIB, TIB, limit=1000)
    assert tracked.table.flushes == 0
    whole = tracked.query(TIB, TIB, limit=30_000)
    assert len(whole.parts) == 1000
    assert encoded_room(whole) <= 30_000


@pytest.mark.parametrize("page", [16 << 10, 64 << 10])
def test_a_host_of_larger_pages_maps_and_reports_by_them(page: int) -> None:
    tracked = Tracked((0, 64 * page), page_size=page)
    context, ioas = tracked.context, tracked.ioas
    assert context.iova_ranges(ioas).alignment == page
    with refused(errno.EINVAL):
        context.map(ioas, BOTH, memory(MIB), offset=0, iova=1 << 30, length=PAGE)
    with refused(errno.EINVAL):
        tracked.query(PAGE, page)
    tracked.table.write(5 * page + 100, b"x")
    assert ones(tracked.query(0, 64 * page, KEEP, page_size=page)) == [5]
    small = page // PAGE
    assert ones(tracked.query(0, 64 * page, page_size=PAGE)) == list(range(5 * small, 6 * small))


def test_an_unmap_that_cuts_takes_what_came_before_the_cut() -> None:
    tracked = Tracked((0, MIB), (MIB, MIB), (2 * MIB, MIB))
    with refused(errno.ENOENT):
        tracked.context.unmap(tracked.ioas, 0, 2 * MIB + PAGE)
    assert [mapping.iova for mapping in tracked.table.overlapping(0, U64_MAX)] == [2 * MIB]
    with refused(errno.ENOENT):
        tracked.context.unmap(tracked.ioas, 2 * MIB + PAGE, 8 * MIB)
    assert tracked.context.unmap(tracked.ioas, 0, U64_MAX) == MIB


PAGES = 64
WRITES = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(0, 2)), max_size=60)


@settings(max_examples=60)
@given(WRITES, st.sampled_from([(PAGE, PAGE), (2 * MIB, PAGE), (16 << 10, 16 << 10)]))
def test_every_write_is_in_a_harvest_or_in_the_query_before_the_unmap(
    steps: list[tuple[int, int]], sizes: tuple[int, int]
) -> None:
    """Writes, harvests and unmaps in any order: what was reported covers every page written (P1, the host's part)."""
    leaf, page = sizes
    tracked = Tracked((0, PAGES * page), leaf_size=leaf, page_size=page)
    written, reported = set(), set()
    for place, action in steps:
        if action == 0:
            tracked.table.write(place * page, b"x")
            written.add(place)
        elif action == 1:
            reported |= set(ones(tracked.query(0, PAGES * page, page_size=page)))
        else:
            reported |= set(ones(tracked.query(0, PAGES * page, KEEP, page_size=page)))
            tracked.context.unmap(tracked.ioas, 0, PAGES * page)
            tracked.context.map(tracked.ioas, BOTH, memory(MIB * 4), offset=0, iova=0, length=PAGES * page)
    reported |= set(ones(tracked.query(0, PAGES * page, page_size=page)))
    assert reported == written
