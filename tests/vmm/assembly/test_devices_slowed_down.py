"""Devices whose DMA is held for slices of time: how much less they dirty, and that the guest lives with it."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from lab.rehearsal.side import Side, assembled_side, boot
from lab.scenario import Scenario, check_scenario
from vfio_host.interface.calls import SetDeviceState
from vfio_host.interface.numbers import DeviceState
from vmm.guest.pacing import SECOND
from vmm.vfio.device import VfioDevice
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.quiesce_slices import MOST_PERCENT, PERIOD_NS

Device = Mapping[str, object]
CARD: Device = {"model": "nic", "dma_rate": "16MiB/s"}
ACCELERATOR: Device = {"model": "qat", "dma_rate": "64MiB/s"}
GPU: Device = {"model": "gpu", "local_memory": "1MiB", "dma_rate": "64MiB/s"}
LONG = 100 * SECOND


def scenario(*devices: Device) -> Scenario:
    tables = [
        {"name": f"dev{index}", "address": f"00:{index + 4:02x}.0", **device} for index, device in enumerate(devices)
    ]
    machine = {
        "memory": {"size": "256MiB"},
        "viommu": {"model": "none"},
        "guest": {"cpu_dirty_rate": "4MiB/s", "working_set": "4MiB"},
        "device": tables,
    }
    document = {"name": "slowed", "title": "Slowed devices", "machine": machine, "expect": {"outcome": "completed"}}
    return check_scenario(document, "slowed")


@contextmanager
def leaving(*devices: Device) -> Iterator[Side]:
    """Yield a machine that runs, has run for a while, and is tracked for a migration."""
    with assembled_side(scenario(*devices)) as side:
        boot(side, 1)
        side.world.run_for(1000)
        side.machine.start_tracking()
        yield side


def take(side: Side, percent: int) -> None:
    now = side.world.now_ns
    side.machine.device_throttle.take(percent, now, now + LONG)
    side.world.wake()


def dma_pages(side: Side, ms: float) -> int:
    """Let a time pass and count the pages that devices' trackers name, looking every 20 ms."""
    side.machine.harvest()
    count, end = 0, side.world.now_ns + round(ms * 1e6)
    while side.world.now_ns < end:
        side.world.run_for(20)
        found = side.machine.harvest()
        assert found.failure is None
        count += found.dma.count()
    return count


@pytest.mark.parametrize("percent", [20, 50, 80])
def test_a_network_card_dirties_as_much_less_as_is_taken_from_it_and_all_of_it_again_afterwards(percent: int) -> None:
    with leaving(CARD) as side:
        whole = dma_pages(side, 1000)
        assert whole > 1000
        take(side, percent)
        assert dma_pages(side, 1000) == pytest.approx(whole * (1 - percent / 100), rel=0.2)
        take(side, 0)
        assert dma_pages(side, 1000) == pytest.approx(whole, rel=0.1)
        assert side.machine.report().errors == 0


@pytest.mark.parametrize("device", [ACCELERATOR, GPU])
def test_a_device_that_works_off_a_queue_dirties_less_and_no_job_of_its_driver_fails(device: Device) -> None:
    """It catches up with its queue, so that less is gained than is taken."""
    with leaving(device) as side:
        whole = dma_pages(side, 1000)
        take(side, MOST_PERCENT)
        assert 0 < dma_pages(side, 1000) < 0.8 * whole
        before = side.machine.report().jobs_done
        take(side, 0)
        assert dma_pages(side, 1000) == pytest.approx(whole, rel=0.1)
        report = side.machine.report()
        assert report.errors == 0
        assert report.jobs_done > before


@pytest.mark.parametrize("device", [CARD, ACCELERATOR, GPU])
def test_a_device_writes_nothing_in_its_slice_while_the_vcpus_go_on(device: Device) -> None:
    with leaving(device) as side:
        take(side, MOST_PERCENT)
        side.world.run_until(side.world.now_ns + PERIOD_NS * (100 - MOST_PERCENT) // 100 + 1)
        side.world.run_for(1)
        side.machine.harvest()
        before = side.machine.report().pages_written
        while side.machine.report().pages_written < before + 30:
            side.world.run_for(1)
        found = side.machine.harvest()
        assert side.machine.devices[0].device.state in (DeviceState.PRE_COPY_P2P, DeviceState.RUNNING_P2P)
        assert found.cpu.count() > 0
        assert found.dma.count() == 0


def refusing(monkeypatch: pytest.MonkeyPatch, device: VfioDevice, *states: DeviceState) -> None:
    """Let a device refuse some states from here on."""
    obeys = device.set_state

    def set_state(state: DeviceState) -> None:
        if state in states:
            raise HostCallFailed(SetDeviceState(state=state), errno.EBUSY)
        obeys(state)

    monkeypatch.setattr(device, "set_state", set_state)


def test_a_migration_goes_on_when_a_device_refuses_to_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(CARD) as side:
        machine = side.machine
        first = machine.read_device_data(1 << 20).records
        with monkeypatch.context() as until_the_stop:
            refusing(until_the_stop, machine.devices[0].device, DeviceState.PRE_COPY_P2P)
            take(side, MOST_PERCENT)
            assert dma_pages(side, 1000) > 1000
            (told,) = machine.take_failures()
            assert "dev0 is throttled no more" in told
            assert machine.device_throttle.at_full_speed == ("dev0",)
        later = machine.read_device_data(1 << 20).records
        machine.stop(for_attempt=True)
        found = machine.read_device_data(8 << 20)
        assert first
        assert later
        assert found.complete
        machine.start()
        side.world.wake()
        side.world.run_for(500)
        assert machine.report().errors == 0


def test_a_device_that_lost_its_pre_copy_ends_the_attempt_and_not_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with leaving(CARD) as side:
        machine = side.machine
        take(side, MOST_PERCENT)
        with monkeypatch.context() as meanwhile:
            refusing(meanwhile, machine.devices[0].device, DeviceState.PRE_COPY)
            side.world.run_for(2 * PERIOD_NS / 1e6)
        assert machine.devices[0].device.state is DeviceState.RUNNING
        with pytest.raises(HostCallFailed, match="EBUSY"):
            machine.read_device_data(1 << 20)
        machine.stop_tracking()
        side.world.run_for(500)
        assert machine.report().errors == 0
        machine.start_tracking()
        assert machine.read_device_data(1 << 20).records
        assert dma_pages(side, 500) > 500
