"""Several devices of one machine: shared containers, tracking of all of them, and what is said beforehand."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from lab.rehearsal.host_in_process import HostInProcess
from lab.rehearsal.material import seeded_material
from vfio_host.devices.nic import Nic
from vfio_host.devices.ring_device import RingDevice
from vfio_host.interface.calls import HostConfiguration
from vfio_host.interface.numbers import DeviceState
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.machine import Machine
from vmm.assembly.memory_image import MemorySource
from vmm.assembly.specification import check_specification
from vmm.assembly.tracking_reason import TrackingReason
from vmm.memory.ram_block import RamBlock
from vmm.vfio.blockers import BlockerCode
from vmm.vfio.dirty_tracker import Tracker
from vmm.vfio.host_port import HostCallFailed

Device = Mapping[str, object]
QAT: Device = {"model": "qat"}
NIC: Device = {"model": "nic"}
TYPE1: Device = {"model": "qat", "backend": "type1", "enable_migration": "on"}
NO_VIOMMU: Mapping[str, object] = {"viommu": {"model": "none"}}


def as_it_is(host: HostConfiguration) -> HostConfiguration:
    return host


@contextmanager
def assembled(
    devices: Sequence[Device],
    document: Mapping[str, object] = NO_VIOMMU,
    change: Callable[[HostConfiguration], HostConfiguration] = as_it_is,
    ram: int = 4 << 30,
) -> Iterator[tuple[Machine, HostInProcess]]:
    tables = [
        {"name": f"dev{index}", "address": f"00:{index + 4:02x}.0", **device} for index, device in enumerate(devices)
    ]
    specification = check_specification(
        {"name": "several", "memory": {"size": ram}, "device": tables, **document}, "several"
    )
    block = RamBlock.create("several", ram)
    kernel = HostInProcess(change(host_configuration(specification)))
    try:
        machine = Machine(specification, block, kernel)
        yield machine, kernel
        for each in machine.devices:
            os.close(each.completion)
            os.close(each.doorbell)
    finally:
        kernel.close()
        block.close()


def write(host: HostInProcess, index: int, iova: int) -> None:
    hardware = host.devices[index].hardware
    assert isinstance(hardware, RingDevice | Nic)
    hardware._dma.write(iova, b"written")


def trackers(machine: Machine) -> list[Tracker]:
    return [assembled.container.tracker for assembled in machine.devices]


def test_one_container_for_a_logger_and_another_and_one_for_type1() -> None:
    with assembled([QAT, NIC, TYPE1]) as (machine, host):
        assert trackers(machine) == [Tracker.IOMMU, Tracker.IOMMU, Tracker.PERPETUAL]
        assert len(machine.listeners) == 2
        machine.start_tracking()
        machine.harvest()
        write(host, 0, 0x5000)
        write(host, 1, 5 << 30)
        harvested = machine.harvest()
        assert harvested.failure is None
        assert 5 in harvested.dma
        assert (3 << 30) // 4096 in harvested.dma


def test_what_two_devices_of_a_container_wrote_is_found_once() -> None:
    for devices in ([QAT, QAT], [NIC, NIC], [QAT, {**QAT, "mediated": True}]):
        with assembled(devices) as (machine, host):
            machine.start_tracking()
            write(host, 0, 0x5000)
            write(host, 0, 0x9000)
            first, second = machine.harvest().dma, machine.harvest().dma
            assert first.indexes().tolist() == [5, 9]
            assert not second


def test_devices_behind_the_viommu_have_containers_of_their_own() -> None:
    with assembled([QAT, QAT, {**QAT, "bypass_iommu": True}, {**NIC, "bypass_iommu": True}], {}) as (machine, _):
        assert len(machine.listeners) == 3
        assert machine.devices[2].container is machine.devices[3].container
        assert [each.listener.attributes is None for each in machine.devices] == [False, False, True, True]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (TrackingReason.DIRTY_RATE, DeviceState.RUNNING),
        (TrackingReason.DIRTY_LIMIT, DeviceState.RUNNING),
        (TrackingReason.MIGRATION, DeviceState.PRE_COPY),
    ],
)
def test_only_a_migration_puts_devices_into_pre_copy(reason: TrackingReason, state: DeviceState) -> None:
    with assembled([QAT]) as (machine, _):
        machine.start()
        machine.start_tracking(reason)
        assert machine.devices[0].device.state is state


def test_a_cancelled_migration_leaves_devices_running_and_nothing_tracking() -> None:
    with assembled([QAT, TYPE1]) as (machine, _):
        blockers = machine.findings()
        machine.start()
        machine.start_tracking()
        machine.stop_tracking()
        assert [each.device.state for each in machine.devices] == [DeviceState.RUNNING] * 2
        assert not any(listener.container.tracking for listener in machine.listeners)
        assert not machine.memory.log.enabled
        assert machine.findings() == blockers


@pytest.mark.parametrize(
    ("device", "document", "dirty"),
    [
        (QAT, NO_VIOMMU, 0),
        (TYPE1, NO_VIOMMU, 4 << 30),
        (TYPE1, {"guest": {"iommu": "pt"}}, 4 << 30),
        (TYPE1, {"viommu": {"dma_translation": False}}, 4 << 30),
        ({**TYPE1, "bypass_iommu": True}, {}, 4 << 30),
    ],
)
def test_a_tracker_that_forgets_nothing_says_what_a_device_is_shown(
    device: Device, document: Mapping[str, object], dirty: int
) -> None:
    with assembled([device], document) as (machine, _):
        assert machine.always_dirty_bytes() == dirty
        assert machine.always_dirty_bytes(1 << 40) == (1 << 40 if dirty else 0)


def test_behind_a_viommu_a_tracker_that_forgets_nothing_says_what_is_mapped() -> None:
    with assembled([TYPE1], {"guest": {"iommu": "nopt"}}, ram=256 << 20) as (machine, _):
        machine.boot(seeded_material(1), MemorySource("mixture", (), ""))
        mapped = machine.always_dirty_bytes()
        assert 0 < mapped == sum(size for _, size in machine.listeners[0].container.mapped) < 16 << 20


def narrow_logs(host: HostConfiguration) -> HostConfiguration:
    devices = tuple(msgspec.structs.replace(device, log_width=30) for device in host.devices)
    return msgspec.structs.replace(host, devices=devices)


def test_a_tracker_that_does_not_start_leaves_nothing_tracking() -> None:
    with assembled([TYPE1, NIC], change=narrow_logs) as (machine, _):
        with pytest.raises(HostCallFailed) as caught:
            machine.start_tracking()
        text = "vfio: Could not start dirty page tracking - dev1: Failed to start DMA logging"
        assert str(caught.value).startswith(text)
        assert not any(listener.container.tracking for listener in machine.listeners)
        assert not machine.memory.log.enabled


def test_ram_that_the_host_cannot_map_is_no_machine() -> None:
    def narrow(host: HostConfiguration) -> HostConfiguration:
        return msgspec.structs.replace(host, address_width=39)

    with (
        pytest.raises(HostCallFailed, match=r"vfio_container_dma_map\(0x100000000"),
        assembled([QAT], change=narrow, ram=600 << 30),
    ):
        pass


@pytest.mark.parametrize(
    ("devices", "document", "blockers", "warnings"),
    [
        ([QAT, NIC], NO_VIOMMU, [], []),
        ([QAT, {**QAT, "p2p": False}], NO_VIOMMU, [BlockerCode.NO_P2P], []),
        ([NIC], {}, [BlockerCode.LOGGER_BEHIND_VIOMMU], []),
        ([NIC], {"viommu": {"dma_translation": False}}, [BlockerCode.LOGGER_BEHIND_VIOMMU], []),
        ([NIC], {"rules": {"set": "vfio-viommu-v3"}}, [], []),
        (
            [NIC],
            {"rules": {"set": "vfio-viommu-v3"}, "viommu": {"reports_max_iova": False}},
            [BlockerCode.VIOMMU_NO_ADDRESS_WIDTH],
            [],
        ),
        ([{**NIC, "bypass_iommu": True}], {}, [], []),
        ([QAT], {}, [], []),
        ([QAT], {"rules": {"relaxed_viommu_check": False}}, [BlockerCode.VIOMMU_PRESENT], []),
        ([{"model": "plain"}], NO_VIOMMU, [BlockerCode.NO_MIGRATION_SUPPORT], []),
        ([TYPE1], {}, [], [BlockerCode.NO_DIRTY_TRACKING]),
        ([{"model": "qat", "backend": "type1"}], {}, [BlockerCode.NO_DIRTY_TRACKING], []),
        (
            [{"model": "qat", "backend": "type1"}],
            {"rules": {"type1_is_not_iommu_dirty_tracking": False}},
            [],
            [],
        ),
        (
            [QAT, {**QAT, "mediated": True, "enable_migration": "on"}],
            NO_VIOMMU,
            [],
            [BlockerCode.NO_DIRTY_TRACKING, BlockerCode.UNTRACKED_PAGE_TABLE],
        ),
    ],
)
def test_what_is_said_beforehand(
    devices: Sequence[Device],
    document: Mapping[str, object],
    blockers: list[BlockerCode],
    warnings: list[BlockerCode],
) -> None:
    with assembled(devices, document) as (machine, _):
        found, warned = machine.findings()
    assert [finding.code for finding in found] == blockers
    assert [finding.code for finding in warned] == warnings


def test_a_perpetual_or_no_tracker_is_not_exact() -> None:
    for devices, exact in (([QAT], True), ([NIC], True), ([QAT, TYPE1], False)):
        with assembled(devices) as (machine, _):
            assert machine.tracking_is_exact() is exact
