"""A device goes from the kernel's driver to a user-level one and back, without an error and without growth."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.vmm.guest.translated_guest import CONFIGURATION, DEVFNS, MILLISECOND, World
from vmm.guest.console import ConsoleRefused, GuestAction
from vmm.guest.device_domains import USER_BASE
from vmm.guest.device_owner import MOST_ACTIONS, UserCycle
from vmm.guest.guest import UserDriver
from vmm.guest.material import Material
from vmm.guest.vtd_domain import DomainKind
from vmm.memory.guest_physical import AccessFault

DEFAULTS = [
    (DomainKind.PAGING, True),
    (DomainKind.PAGING, False),
    (DomainKind.IDENTITY, True),
    (DomainKind.IDENTITY, False),
]


@pytest.fixture(params=DEFAULTS, ids=lambda p: f"{p[0].value}-{'scalable' if p[1] else 'legacy'}")
def world(request: pytest.FixtureRequest, material: Material) -> World:
    default, scalable = request.param
    made = World(default=default, scalable=scalable)
    return made.boot(material)


def test_fifty_cycles_bring_no_error_and_nothing_grows(material: Material) -> None:
    cycle = UserDriver("qat0", UserCycle(30 * MILLISECOND, 12 * MILLISECOND))
    world = World(configuration=replace(CONFIGURATION, user_driver=cycle)).boot(material)
    spare: list[int] = []
    jobs: list[int] = []
    before = world.domains()[0]
    while len(spare) < 52:
        world.step()
        now = world.domains()[0]
        if (before, now) == ("user", "blocked"):
            spare.append(world.driver.spare_pages)
            jobs.append(world.guest.report().jobs_done)
        before = now
    report = world.guest.report()
    assert (report.errors, report.own_errors) == (0, 0)
    assert report.switches >= 4 * 51
    assert world.now < 52 * 60 * MILLISECOND
    assert all(earlier < later for earlier, later in pairwise(jobs)), "work is done in every cycle"
    assert len(set(spare[2:])) == 1
    assert world.unit.faults_recorded == 0


def test_a_take_and_a_give_back_lead_through_the_blocked_domain(world: World) -> None:
    default = world.default.value
    seen = [world.domains()[0]]
    for action in (GuestAction.TAKE, GuestAction.GIVE_BACK):
        world.guest.command(action)
        while world.guest.report().busy_actions:
            world.step()
            if world.domains()[0] != seen[-1]:
                seen.append(world.domains()[0])
        world.run(40)
    assert seen == [default, "blocked", "user", "blocked", default]
    report = world.guest.report()
    assert (report.errors, report.switches) == (0, 4)


def test_the_user_level_driver_works_on_static_mappings_of_its_own(world: World) -> None:
    before = world.do(GuestAction.TAKE).jobs_done
    area = world.layout.devices[0]
    assert sorted(world.hosts[0].held) == list(range(USER_BASE, USER_BASE + area.size, 2 << 20))
    assert world.run(60).jobs_done > before + 32
    assert len(world.hosts[0].held) == area.size >> 21
    assert world.guest.report().errors == 0


def test_a_give_back_leaves_live_mappings_while_the_context_goes(world: World) -> None:
    world.do(GuestAction.TAKE)
    world.run(20)
    world.hosts[0].precise.clear()
    world.guest.command(GuestAction.GIVE_BACK)
    area = world.layout.devices[0]
    held = dict(world.hosts[0].held)
    while world.enabled():
        world.step()
    assert world.hosts[0].held == held, "the device is off and everything is mapped"
    while world.domains() == ["user"]:
        world.step()
    assert not world.hosts[0].held
    assert sorted(world.hosts[0].precise) == [
        (USER_BASE + offset, area.rings + offset) for offset in range(0, area.size, 2 << 20)
    ]
    assert world.do().errors == 0


def test_a_guest_moves_between_any_two_steps(world: World) -> None:
    world.run(15)
    moves = 0
    script = (
        GuestAction.TAKE,
        GuestAction.BLOCK,
        GuestAction.UNBLOCK,
        GuestAction.GIVE_BACK,
        GuestAction.BLOCK,
        GuestAction.TAKE,
        GuestAction.GIVE_BACK,
    )
    for action in script:
        world.guest.command(action)
        while world.guest.report().busy_actions:
            world.move()
            world.step(most=2)  # the vCPU's, which is the first after a move
            world.step(most=2)  # the device's
            moves += 1
        for _ in range(10):
            world.move()
            world.step()
            world.step()
    report = world.run(40)
    assert moves > 30
    assert (report.errors, report.switches) == (0, 12)
    assert world.domains() == [world.default.value]


def test_a_blocked_device_has_written_what_nobody_looked_at(world: World) -> None:
    driver = world.run_until_busy()
    world.guest.command(GuestAction.BLOCK)
    while world.guest.report().busy_actions:
        world.step(most=1)
    answered = driver.answered
    assert not driver.busy
    assert not driver.idle
    assert world.domains() == ["blocked"]
    assert not world.hosts[0].held
    assert world.run(30).jobs_done == answered, "nobody looks while it is blocked"
    report = world.do(GuestAction.UNBLOCK)
    assert world.domains() == [world.default.value]
    report = world.run(40)
    assert report.jobs_done > answered
    assert report.errors == 0


def test_a_device_is_blocked_and_unblocked_in_the_user_level_drivers_domain_too(world: World) -> None:
    world.do(GuestAction.TAKE)
    held = dict(world.hosts[0].held)
    world.do(GuestAction.BLOCK)
    assert not world.hosts[0].held
    world.do(GuestAction.UNBLOCK)
    assert world.domains() == ["user"]
    assert world.hosts[0].held == held
    world.run(20)
    world.do(GuestAction.BLOCK, GuestAction.GIVE_BACK)
    assert world.domains() == [world.default.value]
    assert world.run(20).errors == 0


def test_what_is_done_already_is_finished_at_once(world: World) -> None:
    world.do(GuestAction.GIVE_BACK, GuestAction.UNBLOCK)
    assert world.guest.report().switches == 0
    world.do(GuestAction.TAKE, GuestAction.TAKE, GuestAction.BLOCK, GuestAction.BLOCK)
    assert world.guest.report().switches == 3


def test_two_runs_are_alike(material: Material) -> None:
    cycle = UserDriver("qat0", UserCycle(20 * MILLISECOND, 7 * MILLISECOND))
    worlds = [World(configuration=replace(CONFIGURATION, user_driver=cycle)).boot(material) for _ in range(2)]
    for world in worlds:
        world.run(90)
    assert worlds[0].guest.save() == worlds[1].guest.save()
    assert np.array_equal(worlds[0].memory.block.words, worlds[1].memory.block.words)


def test_a_device_that_never_finishes_is_taken_all_the_same(material: Material) -> None:
    world = World().boot(material)
    world.run_until_busy()
    world.guest.command(GuestAction.TAKE)
    while world.guest.report().busy_actions:
        world.now += MILLISECOND
        world.guest.step(world.now)
        assert world.now < 30_000 * MILLISECOND
    assert world.domains() == ["user"]
    assert world.guest.report().errors == 1
    jobs = world.guest.report().jobs_done
    report = world.run(60)
    assert (report.errors, report.jobs_done > jobs + 20) == (1, True)


def test_a_guest_that_stood_still_has_not_lost_patience(material: Material) -> None:
    world = World().boot(material)
    world.run_until_busy()
    world.guest.command(GuestAction.TAKE)
    for _ in range(3):
        world.guest.step(world.now)
    world.now += 3600_000 * MILLISECOND
    assert world.do().errors == 0


def test_the_console_refuses_what_cannot_be(material: Material) -> None:
    world = World().boot(material)
    for action, device, problem in (
        (GuestAction.TAKE, "qat7", "no device"),
        (GuestAction.CHURN, None, "no device"),
        (GuestAction.CHURN, "qat0", "guest.churn"),
    ):
        with pytest.raises(ConsoleRefused, match=problem):
            world.guest.command(action, device)
    for _ in range(MOST_ACTIONS):
        world.guest.command(GuestAction.BLOCK, "qat0")
    for action in (GuestAction.BLOCK, GuestAction.QUIET):
        with pytest.raises(ConsoleRefused, match="not finished"):
            world.guest.command(action)
    assert world.guest.report().busy_actions == MOST_ACTIONS
    assert world.do().switches == 1


def test_the_device_that_is_meant_is_the_user_level_drivers(material: Material) -> None:
    user = UserDriver("qat1", UserCycle(0, 5 * MILLISECOND))
    world = World(configuration=replace(CONFIGURATION, user_driver=user), devices=2).boot(material)
    world.run(50)
    assert world.domains() == ["paging", "paging"]
    world.do(GuestAction.TAKE)
    assert world.run(50).domains == (("qat0", "paging"), ("qat1", "user"))
    world.do(GuestAction.BLOCK, device="qat0")
    assert world.domains() == ["blocked", "user"]
    assert world.do(GuestAction.UNBLOCK, device="qat0").errors == 0


def test_after_quiet_nothing_writes_memory(world: World) -> None:
    world.run(20)
    world.do(GuestAction.QUIET)
    report = world.guest.report()
    assert (report.asked_dirty_bytes_per_s, report.dirty_bytes_per_s, report.dma_bytes_per_s) == (0, 0.0, 0.0)
    before = world.memory.block.words.copy()
    world.memory.log.swap()
    world.move()
    world.run(200)
    assert world.memory.log.swap().count() == 0
    assert np.array_equal(before, world.memory.block.words)
    world.do(GuestAction.TAKE, GuestAction.BLOCK, GuestAction.GIVE_BACK, GuestAction.BLOCK)
    before = world.memory.block.words.copy()
    assert world.run(100).errors == 0
    assert np.array_equal(before, world.memory.block.words)


def test_a_cycle_stops_when_all_is_quiet(material: Material) -> None:
    cycle = UserDriver("qat0", UserCycle(10 * MILLISECOND, 4 * MILLISECOND))
    world = World(configuration=replace(CONFIGURATION, user_driver=cycle)).boot(material)
    switches = world.run(60).switches
    assert switches > 4
    switches = world.do(GuestAction.QUIET).switches
    assert world.run(100).switches == switches


@pytest.mark.parametrize("damage", ["outside", "cleared"])
def test_spoilt_tables_are_an_error_of_the_guest_and_raise_nothing(material: Material, damage: str) -> None:
    world = World().boot(material)
    world.run(30)
    root = world.driver.domain(DEVFNS[0]).tables.root
    value = 0xFFFFFFFFF003 if damage == "outside" else 0
    world.memory.words(root, 512)[:] = value
    with pytest.raises(AccessFault):
        world.memory.read_u64(0xFFFFFFFFF000)
    report = world.run(60)
    assert report.errors == 1
    world.guest.command(GuestAction.TAKE)
    assert world.run(10).busy_actions == 0
    world.move()
    assert world.run(10).errors == 1
