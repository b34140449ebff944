import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.errors import WrongOrder
from vm_migration.transfer.unsent import UnsentSet
from vmm.memory.dirty_bitmap import DirtyBitmap

PAGES = 20
page_sets = st.sets(st.integers(0, PAGES - 1), max_size=8)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("harvest"), page_sets),
        st.tuples(st.just("open"), st.integers(1, 3)),
        st.tuples(st.just("acknowledge"), st.integers(0, 2)),
        st.just(("merge back", 0)),
    ),
    max_size=30,
)


def bitmap_of(pages: set[int]) -> DirtyBitmap:
    return DirtyBitmap.from_pages(PAGES, np.array(sorted(pages), dtype=np.int64))


@given(steps)
@settings(max_examples=100)
def test_nothing_harvested_is_forgotten_before_it_is_acknowledged(plan: list[tuple[str, set[int] | int]]) -> None:
    unsent = UnsentSet(PAGES)
    dirty: set[int] = set()
    flying: dict[int, set[int]] = {}
    number = -1
    for step, argument in plan:
        if step == "harvest" and isinstance(argument, set):
            unsent.harvest(bitmap_of(argument))
            dirty |= argument
        elif step == "open" and isinstance(argument, int) and not flying:
            opened = unsent.open_round(argument)
            number += 1
            assert opened.number == number
            assert set(opened.bitmap.indexes().tolist()) == dirty
            flying = {stream: set(share.indexes().tolist()) for stream, share in enumerate(opened.shares)}
            assert set().union(*flying.values()) == dirty
            dirty = set()
        elif step == "acknowledge" and argument in flying and isinstance(argument, int):
            unsent.acknowledge(number, argument)
            del flying[argument]
        elif step == "merge back":
            unsent.merge_back()
            dirty = dirty.union(*flying.values())
            flying = {}
        assert set(unsent.remaining().indexes().tolist()) == dirty.union(*flying.values())
        assert unsent.dirty_pages == len(dirty)
        assert unsent.round_open == bool(flying)


def test_a_round_is_not_opened_over_an_open_one() -> None:
    unsent = UnsentSet(PAGES)
    unsent.open_round(2)
    with pytest.raises(WrongOrder, match="round 0 in flight"):
        unsent.open_round(2)


@pytest.mark.parametrize(("number", "stream"), [(1, 0), (0, 2), (-1, 0)])
def test_only_what_is_in_flight_is_acknowledged(number: int, stream: int) -> None:
    unsent = UnsentSet(PAGES)
    unsent.open_round(2)
    with pytest.raises(WrongOrder):
        unsent.acknowledge(number, stream)


def test_a_share_is_acknowledged_once() -> None:
    unsent = UnsentSet(PAGES)
    unsent.open_round(1)
    unsent.acknowledge(0, 0)
    with pytest.raises(WrongOrder):
        unsent.acknowledge(0, 0)


def test_what_a_cut_round_did_not_send_is_dirty_again() -> None:
    unsent = UnsentSet(PAGES)
    unsent.harvest(DirtyBitmap.full(PAGES))
    unsent.open_round(1)
    left = DirtyBitmap(PAGES)
    left.set_run(3, 4)
    unsent.acknowledge(0, 0, left)
    assert unsent.remaining() == left
    assert unsent.open_round(1).bitmap == left
