"""A query over leaves of two sizes against the walk of Linux's drivers, written out leaf by leaf."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.io_page_table import IoPageTable

PAGE, LARGE, MIB = 4096, 2 << 20, 1 << 20
MEMORY = shared_memory(64 * MIB)
PLACE = st.integers(0, 8 * MIB // PAGE).map(lambda page: page * PAGE)


def leaf(iova: int, mapped: tuple[int, int], offset: int) -> tuple[int, int]:
    """Return the leaf of an IOVA and its size: large where IOVA and memory are aligned and it fits the mapping."""
    start, end = mapped
    base = iova // LARGE * LARGE
    if (start - offset) % LARGE == 0 and start <= base and base + LARGE <= end:
        return base, LARGE
    return iova // PAGE * PAGE, PAGE


def walk(first: int, end: int, mapped: tuple[int, int], offset: int, dirty: set[int]) -> set[int]:
    """Return the pages that a clearing walk reports, counted from `first`."""
    found, place = set(), first
    while place < end - 1:
        base, size = leaf(place, mapped, offset)
        if base in dirty:
            dirty.discard(base)
            found |= set(range((place - first) // PAGE, (min(place + size, end) - first) // PAGE))
        place += size
    return found


@settings(max_examples=150)
@given(
    PLACE,
    PLACE | st.none(),
    st.integers(1, 12 * MIB // PAGE),
    st.lists(st.floats(0, 1, exclude_max=True), max_size=12),
    st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1)),
)
def test_a_query_reports_and_clears_what_the_drivers_walk_does(
    iova: int, memory_offset: int | None, pages: int, written: list[float], asked: tuple[float, float]
) -> None:
    offset = iova if memory_offset is None else memory_offset
    mapped, dirty = (iova, iova + pages * PAGE), set[int]()
    table = IoPageTable(LARGE)
    table.map(iova, pages * PAGE, MEMORY, offset)
    table.set_tracking(enable=True)
    for part in written:
        place = iova + int(part * pages * PAGE)
        table.write(place, b"x")
        dirty.add(leaf(place, mapped, offset)[0])
    first = iova + int(asked[0] * pages) * PAGE
    end = min(first + PAGE + int(asked[1] * pages) * PAGE, mapped[1])
    assert set(ones(table.read_dirty(first, end - first))) == walk(first, end, mapped, offset, dirty)
    table.clear_dirty(first, end - first)
    assert set(ones(table.read_dirty(iova, pages * PAGE))) == walk(*mapped, mapped, offset, dirty)
