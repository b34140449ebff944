"""The network card's driver on a real card: every packet checked, drops apart, and nothing lost on the move."""

from collections.abc import Callable, Iterator

import pytest

from tests.vmm.guest.real_device import Pair, pair
from vfio_host.devices.nic import Nic
from vfio_host.interface.nic import COMPLETION, Register
from vmm.guest.layout import MIB
from vmm.guest.material import Material
from vmm.guest.nic_driver import BUFFER_BYTES, RING_ENTRIES, SEGMENT_BYTES, NicDriver

COMPLETIONS = 4096 + RING_ENTRIES * 16


@pytest.fixture
def card(material: Material) -> Iterator[Pair]:
    with pair(Nic, "nic", 20 * MIB, material) as made:
        yield made


def driver(card: Pair) -> NicDriver:
    assert isinstance(card.driver, NicDriver)
    return card.driver


def test_every_packet_is_checked_and_segments_come_and_go(card: Pair) -> None:
    card.run(1100)
    assert (card.driver.errors, driver(card).dropped) == (0, 0)
    assert card.driver.answered == card.port.read(Register.SEQUENCE) > 10_000
    assert card.driver.rate(card.now) == pytest.approx(20 * MIB, rel=0.02)
    assert card.driver.bytes_written == card.port.read(Register.BYTES_WRITTEN)
    assert card.mapper.maps > 80
    assert sum(length == SEGMENT_BYTES for _, length in card.mapper.mapped.values()) <= 8


def test_a_driver_that_sleeps_counts_drops_and_no_errors(card: Pair) -> None:
    card.run(20)
    for _ in range(20):
        card.now += 20_000_000
        while card.hardware.due_ns <= card.now:
            card.hardware.step(card.now)
    card.run(50)
    assert card.driver.errors == 0
    assert driver(card).dropped == card.port.read(Register.DROPPED) > 0
    assert card.driver.answered + driver(card).dropped == card.port.read(Register.SEQUENCE)


def test_a_halt_lets_no_packet_come_and_none_is_lost(card: Pair) -> None:
    card.run(50)
    assert card.driver.busy
    card.driver.halt()
    assert not card.driver.busy
    card.wake()
    card.run(5)
    assert card.driver.idle
    received = card.driver.answered
    card.run(50)
    assert card.driver.answered == received == card.port.read(Register.SEQUENCE)
    card.driver.resume()
    card.wake()
    card.run(50)
    assert card.driver.errors == driver(card).dropped == 0
    assert card.driver.answered > received


def test_a_driver_is_closed_and_opened_again_where_the_wire_is(card: Pair) -> None:
    for _ in range(3):
        card.run(30)
        card.driver.halt()
        card.wake()
        card.run(3)
        card.driver.close()
        card.driver.close()
        assert not card.driver.opened
        assert card.mapper.mapped == {}
        card.run(30)
        card.driver.open(card.mapper)
        card.driver.resume()
        card.wake()
    card.run(30)
    assert card.driver.errors == driver(card).dropped == 0
    assert card.driver.answered == card.port.read(Register.SEQUENCE)


def test_a_halted_driver_opens_its_device_and_nothing_comes(card: Pair) -> None:
    card.driver.halt()
    card.driver.close()
    card.driver.open(card.mapper)
    card.wake()
    card.run(30)
    assert card.driver.opened
    assert card.port.read(Register.SEQUENCE) == 0
    card.driver.resume()
    card.wake()
    card.run(30)
    assert card.driver.answered > 0
    assert card.driver.errors == 0


def test_a_close_in_the_middle_of_packets_is_an_error(card: Pair) -> None:
    card.run(20)
    card.now += 5_000_000
    card.hardware.step(card.now)
    card.driver.close()
    assert card.driver.errors == 1
    assert card.mapper.mapped == {}


def test_without_an_iova_the_driver_waits_and_drops_are_counted(card: Pair) -> None:
    card.run(20)
    card.mapper.full = True
    card.run(200)
    assert driver(card).answered < card.port.read(Register.SEQUENCE)
    card.mapper.full = False
    card.run(50)
    assert card.driver.errors == 0
    assert driver(card).dropped > 0


def test_packets_go_on_over_migrations(card: Pair) -> None:
    moved = card
    for milliseconds in (3, 20, 7, 1):
        moved.run(milliseconds)
        moved = moved.moved()
    moved.run(100)
    assert moved.driver.errors == driver(moved).dropped == 0
    assert moved.port.doorbells == 1
    assert moved.driver.answered == moved.port.read(Register.SEQUENCE) > 1000


def spoil(card: Pair, change: Callable[[NicDriver], None]) -> None:
    """Let packets come, change something before the driver looks, and let it look."""
    card.run(20)
    card.now += 5_000_000
    card.hardware.step(card.now)
    change(driver(card))
    card.wake()
    card.run(40)


def test_a_lost_page_of_packets_is_an_error_for_each(card: Pair) -> None:
    def lose(made: NicDriver) -> None:
        start = card.memory.offset_of(card.layout.devices[0].slabs + made._rings.checked // 2 * 2 * BUFFER_BYTES)
        card.block.words[(start >> 12) + 1] = 0

    spoil(card, lose)
    assert card.driver.errors == 2


@pytest.mark.parametrize("field", range(6))
def test_a_wrong_completion_is_an_error(card: Pair, field: int) -> None:
    def change(made: NicDriver) -> None:
        place = card.layout.devices[0].rings + COMPLETIONS + (made._rings.checked + 1) % RING_ENTRIES * COMPLETION.size
        values = list(COMPLETION.unpack(card.memory.read(place, COMPLETION.size)))
        values[field] += 1
        card.memory.write(place, COMPLETION.pack(*values))

    spoil(card, change)
    assert 1 <= card.driver.errors <= 2
    assert not card.driver.failed
