"""Translating many addresses at once gives what each alone gives, on tables that may be hostile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu.context import SecondStage
from vmm.viommu.table_words import TableWords
from vmm.viommu.walk import SecondStageWalker, Translation

RAM = 1 << 20
ROOT = 0x10000
TABLES = tuple(range(ROOT, ROOT + 0x6000, 0x1000))


def check(memory: GuestMemory, stage: SecondStage, iovas: list[int], *, write: bool, scalable: bool = False) -> None:
    walker = SecondStageWalker(memory, 48, scalable=scalable)
    found = walker.translate_batch(stage, np.array(iovas, dtype=np.uint64), write=write)
    assert len(found.reasons) == len(found.translated) == len(iovas)
    for iova, translated, reason in zip(iovas, found.translated.tolist(), found.reasons.tolist(), strict=True):
        alone = walker.translate(stage, iova, write=write)
        if isinstance(alone, Translation):
            assert (translated, reason) == (alone.translated, 0)
        else:
            assert reason == alone.reason


entries = st.one_of(
    st.sampled_from(TABLES).map(lambda table: table | 3),
    st.builds(
        lambda frame, low: frame << 12 | low, st.integers(0, 1 << 20), st.sampled_from([0, 1, 2, 3, 0x83, 0x803])
    ),
    st.sampled_from([0xFEE00003, 0xC0000083, 0xFEE00083, 0x200083, 1 << 62 | 0x5003, 1 << 50 | 3]),
    st.integers(0, (1 << 64) - 1),
)
indexes = st.integers(0, 3)
addresses = st.one_of(
    st.builds(
        lambda parts, offset: sum(part << 12 + 9 * level for level, part in enumerate(parts)) | offset,
        st.tuples(indexes, indexes, indexes, indexes),
        st.integers(0, 0xFFF),
    ),
    st.integers(0, (1 << 64) - 1),
)


@given(
    st.lists(st.tuples(st.sampled_from(TABLES), indexes, entries), max_size=40),
    st.lists(addresses, max_size=60),
    st.builds(
        SecondStage,
        st.sampled_from([ROOT, ROOT, ROOT, RAM, RAM - 0x1000]),
        st.sampled_from([3, 4]),
        st.just(2),
        st.sampled_from([None, 0]),
        st.just(value=False),
    ),
    st.booleans(),
)
@settings(max_examples=120)
def test_batches_agree_with_single_walks(
    contents: list[tuple[int, int, int]], iovas: list[int], stage: SecondStage, write: bool
) -> None:
    memory = GuestMemory(RamBlock.create("batch", RAM))
    for table, index, entry in contents:
        memory.write_u64(table + index * 8, entry)
    check(memory, stage, iovas, write=write, scalable=stage.pasid is not None)


@given(st.integers(0, 1 << 32), st.booleans(), st.booleans())
@settings(max_examples=30)
def test_random_bytes_as_tables(seed: int, inside: bool, write: bool) -> None:
    memory = GuestMemory(RamBlock.create("batch", RAM))
    random = np.random.default_rng(seed)
    words = random.integers(0, 1 << 64, RAM // 8, dtype=np.uint64)
    memory.words(0, RAM // 8)[:] = words & np.uint64(0x17_F083) | np.uint64(3) if inside else words
    iovas = random.integers(0, 1 << 48, 200, dtype=np.uint64).tolist()
    check(memory, SecondStage(ROOT, 4, 2, None, False), iovas, write=write)


def test_more_addresses_than_are_walked_at_a_time() -> None:
    memory = GuestMemory(RamBlock.create("batch", RAM))
    memory.write_u64(ROOT, ROOT + 0x1000 | 3)
    memory.write_u64(ROOT + 0x1000, 0x83)
    iovas = np.arange(50_000, dtype=np.uint64) * np.uint64(0x1000)
    stage = SecondStage(ROOT, 3, 2, None, False)
    found = SecondStageWalker(memory, 39, scalable=False).translate_batch(stage, iovas, write=False)
    assert np.array_equal(found.translated[:512], iovas[:512])
    assert not found.reasons[:512].any()
    assert set(found.reasons[512:].tolist()) == {6}


def test_an_empty_batch() -> None:
    memory = GuestMemory(RamBlock.create("batch", RAM))
    check(memory, SecondStage(ROOT, 4, 2, None, False), [], write=True)


@pytest.mark.parametrize("address", [0, 0x7FFF_FFF8, 0x8000_0000, 0xFFFF_FFF8, 0x1_0000_0000, 0x1_4000_0000 - 8])
def test_words_on_both_sides_of_the_hole(address: int) -> None:
    """RAM of 3 GiB lies in two pieces: 2 GiB below, 1 GiB from 4 GiB on. The block is sparse."""
    memory = GuestMemory(RamBlock.create("batch", 3 << 30))
    words = TableWords(memory)
    in_ram = address < 0x8000_0000 or address >= 0x1_0000_0000
    if in_ram:
        memory.write_u64(address, 0x1234_5678)
    assert words.read(address) == (0x1234_5678 if in_ram else None)
    found, missing = words.gather(np.array([address, 0x1_0000_0010, 0x9000_0000], dtype=np.uint64))
    assert missing is not None
    assert missing.tolist() == [not in_ram, False, True]
    assert found[1] == 0
    assert not in_ram or found[0] == 0x1234_5678
    assert words.read(0x1_4000_0000) is None
