"""The IOVA tree against a plain list, and the rules of semantics 1.5."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.viommu.iova_tree import READABLE, WRITABLE, DmaMap, IovaTree

RW = READABLE | WRITABLE
intervals = st.tuples(st.integers(0, 40), st.integers(0, 12))
steps = st.lists(st.tuples(st.sampled_from(["insert", "remove", "find"]), intervals), max_size=40)


def ascending(records: list[DmaMap]) -> list[DmaMap]:
    return sorted(records, key=lambda record: record.iova)


def touching(records: list[DmaMap], first: int, last: int) -> list[DmaMap]:
    return ascending([record for record in records if record.iova <= last and record.iova + record.size >= first])


def test_sizes_are_inclusive() -> None:
    tree = IovaTree()
    assert tree.insert(DmaMap(0x1000, 0xFFF, 0xA000, RW))
    assert tree.find(0x1FFF, 0x1FFF) == DmaMap(0x1000, 0xFFF, 0xA000, RW)
    assert tree.find(0x2000, 0x2FFF) is None
    assert tree.insert(DmaMap(0x2000, 0xFFF, 0xB000, RW))
    assert not tree.insert(DmaMap(0x2FFF, 0, 0xC000, RW))


def test_removal_takes_every_overlapping_record() -> None:
    tree = IovaTree()
    small, large = DmaMap(0x1000, 0xFFF, 0xA000, RW), DmaMap(0x200000, 0x1FFFFF, 0x40000000, RW)
    tree.insert(large)
    tree.insert(small)
    assert tree.remove(0, (1 << 64) - 1) == [small, large]
    assert len(tree) == 0


@given(steps)
@settings(max_examples=200)
def test_behaves_as_a_list_searched_by_overlap(program: list[tuple[str, tuple[int, int]]]) -> None:
    tree, records = IovaTree(), list[DmaMap]()
    for action, (first, size) in program:
        last = first + size
        expected = touching(records, first, last)
        if action == "insert":
            record = DmaMap(first, size, first * 16, RW)
            assert tree.insert(record) is (not expected)
            if not expected:
                records.append(record)
        elif action == "remove":
            assert tree.remove(first, last) == expected
            records = [record for record in records if record not in expected]
        else:
            assert tree.overlapping(first, last) == expected
            assert (tree.find(first, last) is None) is (not expected)
        assert list(tree) == ascending(records)
