from collections.abc import Iterator

import numpy as np
import pytest

from vmm.guest.cpu_workload import CpuWorkload, Pattern, WorkingSet
from vmm.guest.pacing import NEVER, SECOND
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

PLACE = WorkingSet(base=1 << 20, generations=512 << 10, pages=1500)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    block = RamBlock.create("test", 16 << 20)
    block.words[:] = np.random.default_rng(1).integers(0, 1 << 63, block.words.shape, dtype=np.uint64)
    memory = GuestMemory(block)
    memory.log.enabled = True
    yield memory
    block.close()


def workload(memory: GuestMemory, pattern: Pattern = Pattern.UNIFORM, pages_per_s: int = 1000) -> CpuWorkload:
    return CpuWorkload(memory, PLACE, rate=pages_per_s * PAGE_SIZE, pattern=pattern, seed=7)


def booted(memory: GuestMemory, pattern: Pattern = Pattern.UNIFORM, pages_per_s: int = 1000) -> CpuWorkload:
    cpu = workload(memory, pattern, pages_per_s)
    cpu.boot()
    return cpu


def write(cpu: CpuWorkload, pages: int) -> None:
    end = cpu.pages_written + pages
    while cpu.pages_written < end:
        cpu.write(end - cpu.pages_written)


@pytest.mark.parametrize("pattern", [Pattern.UNIFORM, Pattern.SEQUENTIAL])
def test_a_cycle_writes_every_page_once(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern)
    memory.log.swap()
    write(cpu, PLACE.pages)
    first, table = PLACE.base // PAGE_SIZE, PLACE.generations // PAGE_SIZE
    assert memory.log.swap().indexes().tolist() == [table, table + 1, *range(first, first + PLACE.pages)]
    generations = memory.words(PLACE.generations, PLACE.pages // 2).view(np.uint32)
    assert (generations == 1).all()
    assert cpu.pages_written == PLACE.pages


@pytest.mark.parametrize("pattern", list(Pattern))
def test_whole_memory_has_no_errors(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern)
    for _ in range(60):
        cpu.write(200)
    assert cpu.errors == 0
    assert cpu.draws >= 60 * 96


@pytest.mark.parametrize("pattern", list(Pattern))
def test_every_page_that_a_step_changed_is_in_the_log(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern)
    for _ in range(20):
        before = memory.block.words.copy()
        memory.log.swap()
        cpu.write(150)
        changed = np.flatnonzero((memory.block.words != before).any(axis=1))
        assert memory.log.swap().indexes().tolist() == changed.tolist()


@pytest.mark.parametrize("pattern", list(Pattern))
def test_a_page_with_older_contents_is_found_by_the_guest(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern)
    write(cpu, PLACE.pages)
    older = memory.block.words.copy()
    memory.log.swap()
    write(cpu, 300)
    written = [page for page in memory.log.swap().indexes().tolist() if page >= PLACE.base // PAGE_SIZE]
    memory.block.words[written[5]] = older[written[5]]
    write(cpu, 20 * PLACE.pages)
    assert cpu.errors == 1


def test_a_lost_page_of_the_table_is_found_too(memory: GuestMemory) -> None:
    cpu = booted(memory)
    write(cpu, PLACE.pages)
    table = PLACE.generations // PAGE_SIZE
    older = memory.block.words[table].copy()
    write(cpu, 400)
    memory.block.words[table] = older
    write(cpu, PLACE.pages)
    assert cpu.errors > 100


@pytest.mark.parametrize("pattern", list(Pattern))
def test_another_host_goes_on_where_this_one_stopped(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern)
    for _ in range(30):
        cpu.write(111)
    block = RamBlock.create("copy", memory.block.size)
    block.words[:] = memory.block.words
    moved = workload(GuestMemory(block), pattern)
    moved.load(cpu.save())
    for _ in range(30):
        if pattern is Pattern.ZIPF:  # its draws also depend on what the present second has seen
            moved.write(111)
        else:
            assert cpu.write(111) == moved.write(111)
    assert moved.errors == 0
    if pattern is not Pattern.ZIPF:
        assert moved.save() == cpu.save()
        assert (block.words == memory.block.words).all()
    block.close()


@pytest.mark.parametrize("pattern", list(Pattern))
def test_the_asked_rate_of_distinct_pages_is_met(memory: GuestMemory, pattern: Pattern) -> None:
    cpu = booted(memory, pattern, pages_per_s=500)
    now, due, distinct = 0, 0, 0
    for second in range(3):
        memory.log.swap()
        while now < (second + 1) * SECOND:
            due = cpu.step(now)
            assert due > now or cpu.pages_written
            now = max(now + 100_000, due)
        distinct = memory.log.swap().count() - 2
    assert cpu.rate(now) == pytest.approx(500 * PAGE_SIZE, rel=0.02)
    assert distinct == pytest.approx(500, abs=15)


def test_zipf_has_hot_pages_and_gives_up_on_what_cannot_be(memory: GuestMemory) -> None:
    cpu = booted(memory, Pattern.ZIPF, pages_per_s=1499)
    now = 0
    while now < 2 * SECOND:
        now = max(now + 1_000_000, cpu.step(now))
    generations = np.sort(memory.words(PLACE.generations, PLACE.pages // 2).view(np.uint32))[::-1]
    assert generations[:15].sum() > 10 * generations[-750:].sum() / 50
    assert 0 < cpu.rate(now) < 1499 * PAGE_SIZE
    assert cpu.draws < 2 * SECOND // 2_000_000 * 2048


@pytest.mark.parametrize(("pages_per_s", "most"), [(1, 1), (100, 50), (256, 43), (1000, 63), (20_000, 100)])
def test_who_writes_little_takes_few_steps_for_it(memory: GuestMemory, pages_per_s: int, most: int) -> None:
    cpu = booted(memory, Pattern.SEQUENTIAL, pages_per_s)
    write(cpu, PLACE.pages)
    now, steps, before = cpu.step(0), 0, cpu.pages_written
    while now < SECOND:
        now = cpu.step(now)
        steps += 1
    assert steps <= most
    assert cpu.pages_written - before == pytest.approx(pages_per_s, rel=0.05, abs=1)


def test_a_pause_is_not_caught_up(memory: GuestMemory) -> None:
    cpu = booted(memory)
    cpu.step(0)
    write(cpu, PLACE.pages)
    before = cpu.pages_written
    cpu.step(10 * SECOND)
    assert cpu.pages_written - before <= 50
    cpu.restart_clock()
    cpu.step(20 * SECOND)
    assert cpu.pages_written - before <= 50


def test_no_working_set_means_no_work(memory: GuestMemory) -> None:
    cpu = CpuWorkload(memory, WorkingSet(1 << 20, 1 << 19, 0), rate=1 << 20, pattern=Pattern.UNIFORM, seed=1)
    cpu.boot()
    assert cpu.step(0) == NEVER
