from lab.rehearsal.link import Link
from lab.rehearsal.side import assembled_side, boot
from lab.rehearsal.world import STEP_NS, World
from tests.lab.rehearsed_machines import small_scenario


def test_the_world_goes_on_while_bytes_travel_and_the_link_owes_no_fraction() -> None:
    with assembled_side(small_scenario()) as side:
        boot(side, 1)
        link = Link(side.world, 3, zeros_stand_for_data=False)
        link.charge(1)
        assert side.world.now_ns == 333_333_333
        assert side.machine.report().pages_written > 0
        link.charge(1)
        link.charge(1)
        assert (side.world.now_ns, link.wire_bytes) == (1_000_000_000, 3)


def test_nothing_happens_between_two_equal_moments() -> None:
    with assembled_side(small_scenario()) as side:
        boot(side, 1)
        side.world.run_for(20)
        before, now = side.machine.report(), side.world.now_ns
        side.world.run_until(now)
        side.world.run_until(now - 10 * STEP_NS)
        assert (side.machine.report(), side.world.now_ns) == (before, now)


def test_a_machine_that_stands_still_lets_time_pass() -> None:
    with assembled_side(small_scenario(), now_ns=5) as side:
        world: World = side.world
        world.run_for(1000)
        assert (world.now_ns, side.machine.report().steps) == (1_000_000_005, 0)


def test_rates_are_those_that_the_guest_is_asked_for() -> None:
    with assembled_side(small_scenario()) as side:
        boot(side, 1)
        side.world.run_for(2200)
        report = side.machine.report()
        assert report.errors == 0
        assert abs(report.dirty_bytes_per_s / report.asked_dirty_bytes_per_s - 1) < 0.1
        assert abs(report.dma_bytes_per_s / report.asked_dma_bytes_per_s - 1) < 0.25
