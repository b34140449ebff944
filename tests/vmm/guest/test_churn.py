"""Buffers that come and go beside the workload, and a driver that takes away what the device still writes."""

from dataclasses import replace

import msgspec
import pytest

from tests.vmm.guest.translated_guest import CONFIGURATION, DEVFNS, World
from vmm.guest.console import GuestAction
from vmm.guest.guest import ChurnPlan, GuestConfiguration, GuestState, GuestStateRefused
from vmm.guest.layout import MIB, TABLES_SIZE
from vmm.guest.material import Material
from vmm.guest.vtd_domain import DomainKind
from vmm.memory.quantities import PAGE_SIZE

BUFFER = 64 << 10


def churning(plan: ChurnPlan | None = None) -> GuestConfiguration:
    return replace(CONFIGURATION, churn=plan or ChurnPlan("qat0", maps_per_s=2000, buffer=BUFFER, live=12))


def churned(world: World) -> int:
    """How many of the mapped pages are buffers': the workload's are in a slab of 2 MiB, in the corpus or the rings."""
    slabs = world.layout.devices[0].slabs
    return sum(size == PAGE_SIZE and address >= slabs for address, size in world.hosts[0].held.values())


def mapped(world: World) -> int:
    state = msgspec.msgpack.decode(world.guest.save(), type=GuestState)
    churn = state.devices[0].churn
    assert churn is not None
    return churn.mapped


def test_buffers_come_and_go_at_the_rate(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    jobs = world.run(10).jobs_done
    before, live = mapped(world), set()
    for _ in range(20):
        world.run(10)
        live.add(churned(world))
    assert mapped(world) - before == pytest.approx(400, abs=10)
    assert live == {12 * BUFFER // PAGE_SIZE}
    report = world.guest.report()
    assert report.errors == 0
    assert report.jobs_done > jobs + 64


def test_the_console_turns_churn_off_and_on(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    world.run(30)
    world.do(GuestAction.CALM)
    assert churned(world) == 0
    before = mapped(world)
    world.run(30)
    assert (churned(world), mapped(world)) == (0, before)
    world.do(GuestAction.CHURN)
    world.run(30)
    assert churned(world) > 0
    world.do(GuestAction.QUIET)
    assert churned(world) == 0


def test_churn_belongs_to_the_kernel_and_rests_while_a_user_level_driver_has_the_device(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    world.run(30)
    world.do(GuestAction.TAKE)
    before = mapped(world)
    world.run(30)
    assert (churned(world), mapped(world)) == (0, before)
    world.do(GuestAction.GIVE_BACK)
    world.run(30)
    assert churned(world) == 12 * BUFFER // PAGE_SIZE
    world.do(GuestAction.BLOCK)
    world.do(GuestAction.CALM)
    world.do(GuestAction.UNBLOCK)
    assert churned(world) == 0
    assert world.run(30).errors == 0


def test_churn_moves_with_the_guest(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    for _ in range(60):
        world.move()
        world.step()
    world.do(GuestAction.CALM)
    assert churned(world) == 0
    assert world.run(20).errors == 0


def test_addresses_and_tables_do_not_grow(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    for _ in range(4):
        world.run(80)
        world.do(GuestAction.CALM, GuestAction.CHURN)
    tops = world.driver.domain(DEVFNS[0]).allocator.save().tops
    assert 0xFEE00000 - tops[0] < 12 * MIB
    assert tops[1] == 1 << 48


def test_churn_leaves_table_pages_to_the_device(material: Material) -> None:
    plan = ChurnPlan("qat0", maps_per_s=5_000, buffer=2 * MIB - 4096, live=4096)
    world = World(configuration=churning(plan), tables=TABLES_SIZE // 5).boot(material)
    world.run(30)
    assert 80 < world.driver.spare_pages < 140
    jobs = world.guest.report().jobs_done
    report = world.run(30)
    assert (report.errors, report.jobs_done > jobs + 16) == (0, True)
    assert world.do(GuestAction.TAKE, GuestAction.GIVE_BACK).errors == 0


def test_a_state_with_another_churn_is_refused(material: Material) -> None:
    world = World(configuration=churning()).boot(material)
    world.run(20)
    state = msgspec.msgpack.decode(world.guest.save(), type=GuestState)
    device = state.devices[0]
    assert device.churn is not None
    many = msgspec.structs.replace(device.churn, live=tuple(range(13)))
    before = world.guest.save()
    for wrong in (
        msgspec.structs.replace(device, churn=None),
        msgspec.structs.replace(device, churn=many),
        msgspec.structs.replace(device, held_ns=-1),
        msgspec.structs.replace(device, driver=b""),
        msgspec.structs.replace(device, actions=(GuestAction.TAKE,) * 33),
    ):
        with pytest.raises(GuestStateRefused):
            world.guest.load(msgspec.msgpack.encode(msgspec.structs.replace(state, devices=(wrong,))))
        assert world.guest.save() == before
    assert world.run(20).errors == 0


@pytest.mark.parametrize("default", [DomainKind.PAGING, DomainKind.IDENTITY])
def test_dma_after_unmap_is_the_guests_own_error(material: Material, default: DomainKind) -> None:
    configuration = replace(CONFIGURATION, dma_after_unmap=True)
    world = World(default=default, configuration=configuration, devices=2).boot(material)
    report = world.run(400)
    assert report.errors == 0
    assert (report.own_errors > 0) == (default is DomainKind.PAGING), "without translation nothing is taken away"
    world.move()
    later = world.run(400)
    assert later.errors == 0
    assert later.jobs_done > report.jobs_done + 64
    assert (later.own_errors > report.own_errors) == (default is DomainKind.PAGING)
    assert world.do(GuestAction.TAKE, GuestAction.GIVE_BACK).errors == 0
