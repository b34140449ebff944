"""Mappings in their short lists against one long list."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.shared_memory import shared_memory as memory
from vfio_host.mappings import Mapping, Mappings
from vfio_host.memory_file import MemoryFile

PAGE, SPACE = 4096, 40_000


def new(first: int, count: int, backing: MemoryFile) -> Mapping:
    return Mapping(first, first + count, backing, 0, readable=True, writable=True, leaf_sizes=(PAGE,))


def overlaps(mapping: Mapping, start: int, end: int) -> bool:
    return mapping.iova < end and start < mapping.end


@settings(max_examples=25)
@given(st.integers(0, 1 << 32), st.lists(st.tuples(st.integers(0, SPACE), st.integers(1, SPACE)), max_size=15))
def test_short_lists_do_what_one_long_list_does(seed: int, ranges: list[tuple[int, int]]) -> None:
    chance, backing, mappings = random.Random(seed), memory(PAGE), Mappings()  # noqa: S311 - not for secrets
    model = []
    for place in chance.sample(range(0, SPACE, 10), 3000):  # enough for several lists
        model.append(new(place, chance.randint(1, 10), backing))
        mappings.add(model[-1])
    model.sort(key=lambda mapping: mapping.iova)
    for start, count in ranges:
        end = min(start + count, SPACE + 20)
        assert list(mappings.overlapping(start, end)) == [m for m in model if overlaps(m, start, end)]
        assert mappings.occupied(start, end) is any(overlaps(m, start, end) for m in model)
        assert mappings.at(start) is next((m for m in model if overlaps(m, start, start + 1)), None)
        cut = next((m for m in model if overlaps(m, start, end) and (m.iova < start or m.end > end)), None)
        assert mappings.cut_by(start, end) is cut
        gone = [m for m in model if start <= m.iova and m.end <= end]
        assert mappings.remove_within(start, end) == sum(m.length for m in gone)
        model = [m for m in model if m not in gone]
        assert len(mappings) == len(model)
    assert list(mappings.overlapping(0, 1 << 64)) == model
