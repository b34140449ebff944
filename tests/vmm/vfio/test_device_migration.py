"""All devices of a machine go together, and one that fails is brought back and told of."""

import errno

import pytest

from tests.fakes.fake_device import ALL, FakeDevice
from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio import device_migration
from vmm.vfio.device import VfioDevice
from vmm.vfio.host_port import HostCallFailed


def pair(log: list[str]) -> tuple[list[FakeDevice], list[VfioDevice]]:
    fakes = [FakeDevice("a", ALL, log=log), FakeDevice("b", MigrationFlags.STOP_COPY | MigrationFlags.P2P, log=log)]
    return fakes, [fake.device for fake in fakes]


def states(fakes: list[FakeDevice]) -> list[DeviceState]:
    return [fake.state for fake in fakes]


def test_every_device_is_quiet_towards_its_peers_before_any_stops() -> None:
    log: list[str] = []
    fakes, devices = pair(log)
    device_migration.begin_precopy(devices)
    assert states(fakes) == [DeviceState.PRE_COPY, DeviceState.RUNNING]
    device_migration.stop(devices)
    assert log == ["a PRE_COPY", "a PRE_COPY_P2P", "b RUNNING_P2P", "a STOP_COPY", "b STOP_COPY"]
    log.clear()
    device_migration.start(devices)
    assert log == ["a RUNNING_P2P", "b RUNNING_P2P", "a RUNNING", "b RUNNING"]


def test_a_pre_copy_that_begins_again_begins_a_new_stream() -> None:
    fakes, devices = pair([])
    fakes[0].initial = b"initial"
    device_migration.begin_precopy(devices)
    assert bytes(devices[0].read_data(100) or b"") == b"initial"
    device_migration.begin_precopy(devices)
    assert bytes(devices[0].read_data(100) or b"") == b"initial"
    device_migration.end_precopy(devices)
    assert states(fakes) == [DeviceState.RUNNING, DeviceState.RUNNING]


def test_devices_that_cannot_migrate_are_left_as_they_are() -> None:
    plain = FakeDevice("plain", MigrationFlags(0))
    for step in (device_migration.begin_precopy, device_migration.stop, device_migration.start):
        step([plain.device])
    assert plain.log == []


def test_a_device_that_does_not_stop_is_brought_to_stop_and_told_of() -> None:
    fakes, devices = pair([])
    fakes[1].refused = {DeviceState.STOP_COPY: errno.EIO}
    with pytest.raises(HostCallFailed, match="EIO"):
        device_migration.stop(devices)
    assert states(fakes) == [DeviceState.STOP_COPY, DeviceState.STOP]
    device_migration.start(devices)
    assert states(fakes) == [DeviceState.RUNNING, DeviceState.RUNNING]


def test_a_device_that_does_not_come_back_is_reset() -> None:
    fakes, devices = pair([])
    fakes[0].state = DeviceState.ERROR  # where only a reset leads out
    with pytest.raises(HostCallFailed, match="EINVAL"):
        device_migration.halt(devices)
    assert fakes[0].log[-3:] == ["a STOP", "a STOP", "a reset"]
    assert fakes[0].state is DeviceState.RUNNING


def test_the_first_failure_is_told_though_the_reset_fails_too() -> None:
    fakes, devices = pair([])
    fakes[0].refused = {DeviceState.STOP: errno.EIO, DeviceState.ERROR: errno.ENODEV}
    with pytest.raises(HostCallFailed, match="EIO"):
        device_migration.halt(devices)
    assert "a reset" in fakes[0].log
