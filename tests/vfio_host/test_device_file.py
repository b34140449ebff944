"""Devices by their open files: models, features, DMA logs, and a card that a process steps by itself."""

import errno
import os
import select
import time
from pathlib import Path

import pytest

from tests.vfio_host.host_process import DEADLINE, new_memory, running_host
from tests.vfio_host.kernels import DirectHandle, DirectKernel, Handle, StartHost, open_path
from tests.vfio_host.nic_bench import COMPLETIONS, ENTRIES, INDEX, MEMORY_BYTES, Receiver, settings
from vfio_host.errors import ConfigurationInvalid
from vfio_host.interface import calls
from vfio_host.interface.bitmaps import dense
from vfio_host.interface.calls import AnyCall, Bitmap, DeviceConfiguration, Done, Failed, HostConfiguration, Number
from vfio_host.interface.gpu import LOCAL_BYTES_OFFSET
from vfio_host.interface.nic import Register
from vfio_host.interface.numbers import DEV_IOMMU, VFIO_CDEV, DeviceState, Feature, MapFlags
from vfio_host.memory_file import MemoryFile
from vfio_host.process.host import Host
from vfio_host.process.loop import _wait

LOCAL = 1 << 20
LOGGING = (Feature.DMA_LOGGING_START, Feature.DMA_LOGGING_STOP, Feature.DMA_LOGGING_REPORT)


def configuration(*, page_size: int = 4096) -> HostConfiguration:
    return HostConfiguration(
        devices=(
            DeviceConfiguration(name="qat0", model="qat"),
            DeviceConfiguration(name="nic0", model="nic", dma_log=True),
            DeviceConfiguration(name="nic1", model="nic"),
            DeviceConfiguration(name="gpu0", model="gpu", local_memory=LOCAL),
            DeviceConfiguration(name="plain0", model="plain"),
        ),
        page_size=page_size,
    )


def bound(start: StartHost, name: str, *, page_size: int = 4096) -> Handle:
    kernel = start(configuration(page_size=page_size))
    iommu, device = open_path(kernel, DEV_IOMMU), open_path(kernel, VFIO_CDEV + name)
    assert isinstance(device.call(calls.BindIommufd(iommufd=iommu.id)), Number)
    return device


@pytest.mark.parametrize(
    ("name", "flags", "size"), [("qat0", 7, 4096), ("nic0", 7, 168), ("gpu0", 3, 4096 + LOCAL + 4), ("plain0", None, 0)]
)
def test_what_a_device_says_of_its_migration(start: StartHost, name: str, flags: int | None, size: int) -> None:
    device = bound(start, name)
    for feature, value in (
        (Feature.MIGRATION, flags),
        (Feature.MIG_DEVICE_STATE, DeviceState.RUNNING),
        (Feature.MIG_DATA_SIZE, size),
    ):
        expected = Failed(errno.ENOTTY) if flags is None else Number(int(value or 0))
        assert device.call(calls.GetFeature(feature=feature)) == expected
        probed = Failed(errno.ENOTTY) if flags is None else Done()
        assert device.call(calls.GetFeature(feature=feature, probe=True)) == probed


@pytest.mark.parametrize("name", ["qat0", "nic1", "gpu0", "plain0"])
def test_without_a_log_every_logging_call_is_enotty(start: StartHost, name: str) -> None:
    device = bound(start, name)
    made: list[AnyCall] = [calls.GetFeature(feature=feature, probe=True) for feature in LOGGING]
    made.append(calls.DmaLoggingStart(page_size=4096, ranges=((0, 4096),)))
    made.append(calls.DmaLoggingStop())
    made.append(calls.DmaLoggingReport(iova=0, length=4096, page_size=4096))
    for call in made:
        assert device.call(call) == Failed(errno.ENOTTY)


def test_a_log_is_probed_started_reported_and_stopped(start: StartHost) -> None:
    device = bound(start, "nic0")
    for feature in LOGGING:
        assert device.call(calls.GetFeature(feature=feature, probe=True)) == Done()
        assert device.call(calls.GetFeature(feature=feature)) == Failed(errno.EINVAL)
    begin = calls.DmaLoggingStart(page_size=4096, ranges=((0, 1 << 30), (1 << 32, 1 << 40)))
    report = calls.DmaLoggingReport(iova=0, length=1 << 30, page_size=4096)
    assert device.call(report) == Failed(errno.EINVAL)
    assert device.call(begin) == Number(4096)
    assert device.call(begin) == Failed(errno.EINVAL)
    assert device.call(report) == Bitmap(bits=1 << 18)
    assert device.call(calls.Reset()) == Done()
    assert device.call(report) == Bitmap(bits=1 << 18)
    assert device.call(calls.DmaLoggingStop()) == Done()
    assert device.call(begin) == Number(4096)


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_as_many_ranges_as_fit_a_page_of_the_host(start: StartHost, page_size: int) -> None:
    device, limit = bound(start, "nic0", page_size=page_size), page_size // 16
    ranges = tuple((place << 20, 4096) for place in range(limit + 1))
    assert device.call(calls.DmaLoggingStart(page_size=4096, ranges=ranges)) == Failed(errno.E2BIG)
    assert device.call(calls.DmaLoggingStart(page_size=4096, ranges=ranges[:limit])) == Number(4096)


def test_closing_a_device_ends_its_log() -> None:
    kernel = DirectKernel(configuration())
    for _ in range(2):
        iommu, device = open_path(kernel, DEV_IOMMU), open_path(kernel, VFIO_CDEV + "nic0")
        assert isinstance(device, DirectHandle)
        device.call(calls.BindIommufd(iommufd=iommu.id))
        assert device.call(calls.DmaLoggingStart(page_size=4096, ranges=((0, 4096),))) == Number(4096)
        device.file.release()
    kernel.close()


def test_registers_are_the_models_own(start: StartHost) -> None:
    gpu = bound(start, "gpu0")
    assert gpu.call(calls.RegionRead(offset=LOCAL_BYTES_OFFSET)) == Number(LOCAL)
    for call in (calls.RegionRead(offset=0x50), calls.RegionWrite(offset=0x50, value=0)):
        assert gpu.call(call) == Failed(errno.EINVAL)
    qat = bound(start, "qat0") if isinstance(gpu, DirectHandle) else None
    if qat is not None:
        assert qat.call(calls.RegionRead(offset=LOCAL_BYTES_OFFSET)) == Failed(errno.EINVAL)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (DeviceConfiguration(name="d", model="tpu"), "unknown model"),
        (DeviceConfiguration(name="d", model="qat", dma_log=True), "no DMA log"),
        (DeviceConfiguration(name="d", model="nic", dma_log=True, log_width=65), "65 address bits"),
        (DeviceConfiguration(name="d", model="gpu"), "0 bytes of local memory"),
        (DeviceConfiguration(name="d", model="gpu", local_memory=5000), "5000 bytes of local memory"),
    ],
)
def test_a_device_that_cannot_be_is_refused(device: DeviceConfiguration, words: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        Host(HostConfiguration(devices=(device,)))


def test_the_loop_waits_for_the_next_packet_and_does_not_spin() -> None:
    host = Host(configuration())
    devices, card = tuple(host.devices.values()), host.devices["nic0"]
    assert _wait(devices) is None
    for register, value in ((Register.RING_ENTRIES, 1), (Register.RATE, 1500), (Register.CONTROL, 1)):
        card.hardware.write_register(register, value)
    assert _wait(devices) == 0
    card.step(time.monotonic_ns())
    wait = _wait(devices)
    assert wait is not None
    assert 0.5 < wait < 2
    assert card.migration is not None
    card.migration.set_state(DeviceState.STOP)
    assert _wait(devices) is None


def test_a_card_in_a_process_receives_by_itself_and_its_log_tells(tmp_path: Path) -> None:
    memory, completion, doorbell = new_memory(MEMORY_BYTES), os.eventfd(0), os.eventfd(0)
    view = MemoryFile(memory, MEMORY_BYTES).view
    receiver = Receiver(view)
    with running_host(tmp_path, configuration()) as host:
        root = host.connect()
        iommu, device = root.open(DEV_IOMMU), root.open(VFIO_CDEV + "nic0")
        dev_id = device.number(calls.BindIommufd(iommufd=iommu.id))
        ioas = iommu.number(calls.IoasAlloc())
        both = MapFlags.READ | MapFlags.WRITE
        mapping = calls.IoasMapFile(ioas_id=ioas, flags=both, file=0, start=0, length=MEMORY_BYTES, iova=0)
        iommu.done(mapping, (memory,))
        device.done(calls.AttachPt(pt_id=ioas))
        assert dev_id > 0
        device.done(calls.SetEventfds(completion=0, doorbell=1), (completion, doorbell))
        device.number(calls.DmaLoggingStart(page_size=4096, ranges=((0, MEMORY_BYTES),)))
        receiver.post(ENTRIES)
        for register, value in settings(4 << 20):
            device.done(calls.RegionWrite(offset=register, value=value))
        while len(receiver.packets) < 100:
            assert select.select([completion], [], [], DEADLINE)[0]
            os.eventfd_read(completion)
            receiver.post(receiver.collect())
        device.done(calls.RegionWrite(offset=Register.RATE, value=0))
        receiver.post(receiver.collect())
        report = device.call(calls.DmaLoggingReport(iova=0, length=MEMORY_BYTES, page_size=4096))
        root.close()
    assert receiver.errors == []
    assert isinstance(report, Bitmap)
    logged = int.from_bytes(dense(report), "little")
    written = {page for page in range(MEMORY_BYTES >> 12) if logged >> page & 1}
    assert written == {INDEX >> 12, COMPLETIONS >> 12, *range(0x100, 0x100 + ENTRIES * 2048 // 4096)}
    for descriptor in (memory, completion, doorbell):
        os.close(descriptor)
