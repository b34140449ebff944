"""The IOTLB and the context cache by themselves: what they hold, and what each invalidation makes them forget."""

import pytest

from vmm.viommu.context import PassThrough, SecondStage
from vmm.viommu.context_cache import GENERATION_LIMIT, ContextCache
from vmm.viommu.iotlb import CAPACITY, NO_PASID, Cached, Iotlb

STAGE = SecondStage(0x1000, 4, 7, None, processing_disabled=False)
PAGE, LARGE, HUGE = 0xFFF, (1 << 21) - 1, (1 << 30) - 1


def leaf(translated: int = 0x5000, mask: int = PAGE, domain_id: int = 7, *, first_stage: bool = False) -> Cached:
    return Cached(translated, mask, 3, domain_id, first_stage, processing_disabled=False)


@pytest.mark.parametrize("mask", [PAGE, LARGE, HUGE])
@pytest.mark.parametrize("base", [0, 0x1234_4000_0000, (1 << 64) - (1 << 30)])
def test_a_leaf_is_found_by_every_address_in_it(mask: int, base: int) -> None:
    iotlb = Iotlb()
    iotlb.insert(0x18, NO_PASID, base + mask // 2, leaf(mask=mask))
    assert iotlb.find(0x18, NO_PASID, base) == iotlb.find(0x18, NO_PASID, base + mask) == leaf(mask=mask)
    assert iotlb.find(0x18, NO_PASID, base + mask + 1) is None
    assert iotlb.find(0x18, NO_PASID, base - 1) is None
    assert iotlb.find(0x18, 0, base) is None
    assert iotlb.find(0x19, NO_PASID, base) is None


def test_one_leaf_too_many_empties_it_first() -> None:
    iotlb = Iotlb()
    for page in range(CAPACITY):
        iotlb.insert(page % 5, page % 3, page << 12, leaf())
    iotlb.insert(0, 0, 0, leaf(0x9000))
    assert len(iotlb) == 1
    assert iotlb.find(0, 0, 0) == leaf(0x9000)


def test_the_same_leaf_takes_one_place() -> None:
    iotlb = Iotlb()
    for _ in range(3):
        iotlb.insert(0, NO_PASID, 0x1000, leaf())
    assert len(iotlb) == 1
    iotlb.invalidate()
    assert len(iotlb) == 0


@pytest.fixture
def filled() -> Iotlb:
    """Second-stage leaves of domains 7 and 8, first-stage ones of domain 7 with PASIDs 0 and 1."""
    iotlb = Iotlb()
    for domain_id, source in ((7, 1), (8, 2)):
        iotlb.insert(source, NO_PASID, 0x1000, leaf(domain_id=domain_id))
        iotlb.insert(source, NO_PASID, 0x2000, leaf(domain_id=domain_id))
        iotlb.insert(source, NO_PASID, 0x200000, leaf(0, LARGE, domain_id))
    iotlb.insert(3, 0, 0x1000, leaf(first_stage=True))
    iotlb.insert(3, 0, 0x2000, leaf(first_stage=True))
    iotlb.insert(3, 1, 0x1000, leaf(first_stage=True))
    return iotlb


ALL = {(1, 1), (1, 2), (1, 0x200), (2, 1), (2, 2), (2, 0x200), (3, 1), (3, 2), (3, 0x100001)}


def held(iotlb: Iotlb) -> set[tuple[int, int]]:
    found = {
        (source, page)
        for source in (1, 2, 3)
        for page in (1, 2, 0x200)
        if iotlb.find(source, 0 if source == 3 else NO_PASID, page << 12) is not None
    }
    found |= {(3, 0x100001)} if iotlb.find(3, 1, 0x1000) is not None else set()
    assert len(found) == len(iotlb)
    return found


def test_domain_selective(filled: Iotlb) -> None:
    assert held(filled) == ALL
    filled.invalidate_domain(7)
    assert held(filled) == {(2, 1), (2, 2), (2, 0x200)}


def test_page_selective_drops_all_that_the_first_stage_translated_for_the_domain(filled: Iotlb) -> None:
    filled.invalidate_pages(7, 0x2000, 0x2FFF)
    assert held(filled) == {(1, 1), (1, 0x200), (2, 1), (2, 2), (2, 0x200)}


def test_a_page_within_a_large_leaf_drops_the_leaf(filled: Iotlb) -> None:
    filled.invalidate_pages(8, 0x3FF000, 0x3FFFFF)
    assert held(filled) == ALL - {(2, 0x200)}


def test_of_a_pasid(filled: Iotlb) -> None:
    filled.invalidate_pasid(7, 0)
    assert held(filled) == ALL - {(3, 1), (3, 2)}
    filled.invalidate_pasid_pages(7, 1, 0x2000, 0xFFFF)
    assert (3, 0x100001) in held(filled)
    filled.invalidate_pasid_pages(7, 1, 0, 0xFFFF)
    assert (3, 0x100001) not in held(filled)


def test_pages_of_a_pasid_leave_the_second_stage_alone() -> None:
    iotlb = Iotlb()
    iotlb.insert(1, 0, 0x1000, leaf())
    iotlb.invalidate_pasid_pages(7, 0, 0, 0xFFFF)
    assert len(iotlb) == 1


def test_nothing_stays_behind_of_sources_that_were_forgotten() -> None:
    iotlb = Iotlb()
    for pasid in range(2000):
        iotlb.insert(1, pasid, 0x1000, leaf())
        iotlb.invalidate_domain(7)
    assert not iotlb._frames


def test_a_context_holds_for_its_generation() -> None:
    cache = ContextCache()
    assert cache.get(1) is None
    cache.put(1, STAGE)
    cache.put(2, PassThrough(8, None))
    assert cache.get(1) == STAGE
    cache.invalidate()
    assert cache.generation == 2
    assert cache.get(1) is cache.get(2) is None
    cache.put(1, STAGE)
    assert cache.get(1) == STAGE
    assert cache.get(2) is None


def test_devices_by_function_mask() -> None:
    cache = ContextCache()
    for source in (0x18, 0x19, 0x1C, 0x20):
        cache.put(source, STAGE)
    cache.invalidate_device(0x18, 4)
    assert [source for source in (0x18, 0x19, 0x1C, 0x20) if cache.get(source)] == [0x19, 0x20]
    cache.invalidate_device(0x1F, 7)
    assert cache.get(0x19) is None
    assert cache.get(0x20) == STAGE
    assert cache.generation == 1


def test_the_last_generation_is_followed_by_the_first() -> None:
    cache = ContextCache()
    cache.generation = GENERATION_LIMIT - 2
    cache.put(1, STAGE)
    cache.invalidate()
    cache.put(2, STAGE)
    cache.invalidate()
    assert cache.generation == 1
    assert cache.get(1) is cache.get(2) is None


def test_pasid_entries_by_domain_and_pasid() -> None:
    def cache() -> ContextCache:
        made = ContextCache()
        made.put(1, SecondStage(0x1000, 4, 7, 0, False))
        made.put(2, SecondStage(0x1000, 4, 7, 5, False))
        made.put(3, PassThrough(8, 0))
        made.put(4, STAGE)
        return made

    def kept(domain_id: int | None, pasid: int | None) -> list[int]:
        made = cache()
        made.invalidate_pasids(domain_id, pasid)
        return [source for source in range(1, 5) if made.get(source)]

    assert kept(None, None) == [4]
    assert kept(7, None) == [3, 4]
    assert kept(7, 5) == [1, 3, 4]
    assert kept(8, 5) == [1, 2, 3, 4]
