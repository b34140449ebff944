"""The graphics processor's driver on a real device: results that tell of all of local memory, here and after a move."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmm.guest.real_device import Pair, pair
from vfio_host.devices.gpu import Gpu
from vfio_host.interface.qat import COMPLETION
from vmm.guest.gpu_driver import GpuDriver
from vmm.guest.gpu_jobs import INPUTS, JOBS_PER_SLAB, TILE_BYTES, first_chunk, geometric, job
from vmm.guest.layout import MIB
from vmm.guest.material import Material
from vmm.guest.pacing import NEVER

TILES = 40


def small(raise_completion: Callable[[], None]) -> Gpu:
    return Gpu(raise_completion, TILES * TILE_BYTES)


@pytest.fixture
def processor(material: Material) -> Iterator[Pair]:
    with pair(small, "gpu", 100 * MIB, material) as made:
        yield made


@pytest.mark.parametrize("tiles", [1, 5, 31, 32, 40, 64, 100, 4096])
def test_jobs_know_their_tile_its_visits_and_its_input(tiles: int) -> None:
    visits: dict[int, int] = {}
    for number in range(5000):
        made = job(number, tiles)
        visits[made.tile] = visits.get(made.tile, 0) + 1
        assert made.tile < tiles
        assert made.visit == visits[made.tile]
        assert (made.multiplier == 0) == (made.visit == 1)
        first = job(number // JOBS_PER_SLAB * JOBS_PER_SLAB, tiles)
        assert first_chunk(made.tile) == first_chunk(first.tile) <= made.chunk < INPUTS


@given(st.integers(0, 1 << 32), st.integers(0, 200))
def test_the_factor_is_the_sum_of_powers(ratio: int, terms: int) -> None:
    assert geometric(ratio, terms) == sum(ratio**power for power in range(terms)) % (1 << 64)


def test_every_answer_is_checked_over_many_visits(processor: Pair) -> None:
    processor.run(1050)
    assert processor.driver.errors == 0
    assert job(processor.driver.answered, TILES).visit > 10
    assert processor.driver.rate(processor.now) == pytest.approx(100 * MIB, rel=0.05)
    assert processor.driver.bytes_written == processor.driver.answered * TILE_BYTES
    assert len(processor.mapper.mapped) <= 5
    assert processor.mapper.maps > 40


def test_results_go_on_over_migrations(processor: Pair) -> None:
    moved = processor
    for milliseconds in (100, 33, 101, 7):
        moved.run(milliseconds)
        moved = moved.moved()
    moved.run(300)
    assert moved.driver.errors == 0
    assert job(moved.driver.answered, TILES).visit > 4


def test_local_memory_that_was_lost_on_the_way_is_found(processor: Pair) -> None:
    processor.run(200)
    assert isinstance(processor.hardware, Gpu)
    processor.hardware._local[5 * TILE_BYTES : 5 * TILE_BYTES + 8] = bytes(8)
    processor.run(200)
    assert processor.driver.errors > 0


def test_a_visit_that_was_lost_on_the_way_is_found(processor: Pair) -> None:
    processor.run(150)
    assert isinstance(processor.hardware, Gpu)
    before = processor.hardware._local[:]
    processor.run(50)
    processor.hardware._local[:] = before
    processor.run(200)
    assert processor.driver.errors > 0


def test_a_halt_drains_and_a_close_leaves_nothing_mapped(processor: Pair) -> None:
    for _ in range(3):
        processor.run(77)
        processor.driver.halt()
        processor.run(20)
        assert processor.driver.idle
        assert not processor.driver.busy
        processor.driver.close()
        processor.driver.close()
        assert processor.mapper.mapped == {}
        assert processor.driver.step(processor.now) == NEVER
        processor.driver.open(processor.mapper)
        assert processor.driver.halted
        processor.driver.resume()
        processor.wake()
    processor.run(50)
    assert processor.driver.errors == 0
    assert processor.driver.answered > 300


def test_a_close_in_the_middle_of_jobs_is_an_error_and_the_next_open_begins_anew(processor: Pair) -> None:
    processor.run(60)
    processor.hardware.attach(None)
    processor.run(20)
    assert processor.driver.busy
    processor.driver.close()
    assert processor.driver.errors == 1
    processor.hardware.attach(processor.mapper.table)
    processor.driver.open(processor.mapper)
    processor.wake()
    processor.run(300)
    assert processor.driver.errors == 1


def test_without_an_iova_the_driver_waits_and_goes_on(processor: Pair) -> None:
    processor.mapper.full = True
    processor.run(100)
    assert processor.driver.answered == 0
    processor.mapper.full = False
    processor.run(100)
    assert processor.driver.answered > 50
    assert processor.driver.errors == 0


@pytest.mark.parametrize("field", [0, 1, 2, 3, 5])
def test_a_wrong_completion_is_an_error(processor: Pair, field: int) -> None:
    processor.run(50)
    assert isinstance(processor.driver, GpuDriver)
    while processor.memory.read_u64(processor.layout.devices[0].rings + 16) == processor.driver._rings.checked:
        processor.now += 5_000_000
        processor.driver.step(processor.now)
        while processor.hardware.due_ns == 0:
            processor.hardware.step(processor.now)
    rings = processor.layout.devices[0].rings
    place = rings + 8192 + processor.driver._rings.checked % 64 * COMPLETION.size
    values = list(COMPLETION.unpack(processor.memory.read(place, COMPLETION.size)))
    values[field] ^= 1
    processor.memory.write(place, COMPLETION.pack(*values))
    processor.wake()
    processor.run(50)
    assert processor.driver.errors == 1
