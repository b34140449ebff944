"""The process: life and end, descriptors as objects, and clients that misbehave."""

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfio_host.bits import ones
from tests.vfio_host.host_process import DEADLINE, Client, HostProcess, new_memory, running_host
from tests.vfio_host.ring_driver import INPUTS, MEMORY_BYTES, OUTPUTS, REGISTERS, RingDriver, compressible, packed
from vfio_host.interface import calls, numbers
from vfio_host.interface.calls import Failed
from vfio_host.interface.channel import Channel, ChannelClosed
from vfio_host.interface.numbers import DEV_IOMMU, DEV_VFIO, VFIO_CDEV, VFIO_GROUP, DeviceState, Feature, MapFlags
from vfio_host.interface.qat import IN_FLIGHT, STATE_BYTES, Register, Status
from vfio_host.interface.write_witness import WitnessUnavailable, WriteWitness
from vfio_host.memory_file import MemoryFile

CDEV = VFIO_CDEV + "qat0"


class Machine:
    """A client with the accelerator behind an iommufd, its rings and its eventfds."""

    def __init__(self, host: HostProcess, memory: int) -> None:
        self.root = host.connect()
        self.iommu = self.root.open(DEV_IOMMU)
        self.device = self.root.open(CDEV)
        self.memory = memory
        self.driver = RingDriver(MemoryFile(memory, MEMORY_BYTES).view)
        dev_id = self.device.number(calls.BindIommufd(iommufd=self.iommu.id))
        self.ioas = ioas = self.iommu.number(calls.IoasAlloc())
        both = MapFlags.READ | MapFlags.WRITE
        mapping = calls.IoasMapFile(ioas_id=ioas, flags=both, file=0, start=0, length=MEMORY_BYTES, iova=0)
        self.iommu.done(mapping, (memory,))
        flags = numbers.HwptFlags.DIRTY_TRACKING
        self.hwpt = self.iommu.number(calls.HwptAlloc(flags=flags, dev_id=dev_id, pt_id=ioas))
        self.device.done(calls.AttachPt(pt_id=self.hwpt))
        self.completion, self.doorbell = os.eventfd(0), os.eventfd(0)
        self.device.done(calls.SetEventfds(completion=0, doorbell=1), (self.completion, self.doorbell))

    def enable(self) -> None:
        for offset, value in REGISTERS:
            self.device.done(calls.RegionWrite(offset=offset, value=value))

    def submit(self) -> None:
        self.driver.publish()
        os.eventfd_write(self.doorbell, 1)

    def wait(self, completions: int) -> None:
        seen = 0
        while seen < completions:
            assert select.select([self.completion], [], [], DEADLINE)[0]
            seen += os.eventfd_read(self.completion)

    def close(self) -> None:
        self.root.close()
        os.close(self.completion)
        os.close(self.doorbell)


@pytest.fixture
def machine(host: HostProcess) -> Iterator[Machine]:
    memory = new_memory(MEMORY_BYTES)
    running = Machine(host, memory)
    yield running
    running.close()
    os.close(memory)


def eof(client: Client) -> bool:
    """Tell whether the host has closed its end."""
    with pytest.raises(ChannelClosed):
        client.channel.receive()
    return True


def test_the_host_ends_by_itself_when_its_machine_is_gone(host: HostProcess) -> None:
    root = host.connect()
    iommu = root.open(DEV_IOMMU)
    root.channel.close()
    assert iommu.number(calls.IoasAlloc()) > 0
    iommu.close()
    assert host.wait() == 0
    assert not host.path.exists()


def test_sigterm_ends_it_with_open_objects(host: HostProcess) -> None:
    root = host.connect()
    iommu = root.open(DEV_IOMMU)
    host.process.send_signal(signal.SIGTERM)
    assert host.wait() == 0
    assert eof(iommu)
    root.close()


def test_a_descriptor_that_another_process_holds_keeps_its_object(host: HostProcess) -> None:
    root = host.connect()
    iommu = root.open(DEV_IOMMU)
    iommu.number(calls.IoasAlloc())
    copy = Client(Channel(socket.socket(fileno=os.dup(iommu.channel.fileno()))))
    copy.channel.set_deadline(DEADLINE)
    root.close()
    assert copy.call(calls.IoasIovaRanges(ioas_id=1)) == calls.IovaRanges(((0, (1 << 64) - 1),), 4096)
    copy.close()
    assert host.wait() == 0


def test_a_device_does_jobs_by_doorbell_and_eventfd_and_sets_dirty_bits(machine: Machine) -> None:
    plain = compressible(65536)
    machine.iommu.done(calls.HwptSetDirtyTracking(hwpt_id=machine.hwpt, enable=True))
    machine.enable()
    length = machine.driver.put(INPUTS, packed(plain))
    for job in range(40):
        machine.driver.request(job, length=length, destination=OUTPUTS + job * 65536)
    machine.submit()
    machine.wait(40)
    assert [(a.job, a.status) for a in machine.driver.collect()] == [(job, Status.OK) for job in range(40)]
    assert machine.driver.view[OUTPUTS + 39 * 65536 : OUTPUTS + 40 * 65536] == plain
    query = calls.HwptGetDirtyBitmap(
        hwpt_id=machine.hwpt, flags=numbers.GetDirtyFlags.NONE, iova=OUTPUTS, length=4 << 20, page_size=4096
    )
    answer = machine.iommu.call(query)
    assert isinstance(answer, calls.Bitmap)
    assert ones(answer) == list(range(640))
    assert machine.iommu.call(query) == calls.Bitmap(bits=1024)


def test_state_moves_to_another_open_of_the_device_with_jobs_in_flight(machine: Machine, host: HostProcess) -> None:
    machine.enable()
    length = machine.driver.put(INPUTS, packed(compressible(65536)))
    for job in range(IN_FLIGHT + 4):
        machine.driver.request(job, length=length)
    machine.submit()
    machine.wait(1)
    data = machine.device.opened(calls.SetDeviceState(state=DeviceState.PRE_COPY))
    assert data.call(calls.GetPrecopyInfo()) == calls.PrecopyInfo(initial_bytes=64, dirty_bytes=0)
    setup = data.call(calls.ReadData(size=1 << 20))
    machine.device.done(calls.SetDeviceState(state=DeviceState.STOP_COPY))
    rest = data.call(calls.ReadData(size=1 << 20))
    assert isinstance(setup, calls.Data)
    assert isinstance(rest, calls.Data)
    assert data.call(calls.ReadData(size=1)) == calls.Data(memoryview(b""))
    block = memoryview(bytes(setup.data) + bytes(rest.data))
    assert len(block) == STATE_BYTES
    machine.device.done(calls.Reset())
    assert machine.device.number(calls.RegionRead(offset=Register.JOBS_DONE)) == 0
    loading = machine.device.opened(calls.SetDeviceState(state=DeviceState.RESUMING))
    assert loading.number(calls.WriteData(data=block)) == STATE_BYTES
    machine.device.done(calls.SetDeviceState(state=DeviceState.RUNNING))
    while machine.driver.indexes()[2] < IN_FLIGHT + 4:
        machine.wait(1)
    assert [a.job for a in machine.driver.collect()] == list(range(IN_FLIGHT + 4))
    assert machine.device.number(calls.GetFeature(feature=Feature.MIG_DEVICE_STATE)) == DeviceState.RUNNING
    assert machine.device.number(calls.RegionRead(offset=Register.FAULTS)) == 0


def test_closing_the_device_resets_it_and_lets_it_be_opened_again(machine: Machine) -> None:
    assert machine.root.call(calls.Open(path=CDEV)) == Failed(errno.EBUSY)
    machine.enable()
    machine.device.close()
    reopened = open_when_free(machine.root)
    assert reopened.call(calls.RegionRead(offset=0)) == Failed(errno.EINVAL)
    reopened.number(calls.BindIommufd(iommufd=machine.iommu.id))
    assert reopened.number(calls.RegionRead(offset=Register.STATUS)) == 0
    machine.iommu.done(calls.Destroy(id=machine.hwpt))


def open_when_free(root: Client) -> Client:
    """Open the device as soon as the host has seen its last descriptor closed."""
    while True:
        (answer,), received = root.batch((calls.Open(path=CDEV),))
        if isinstance(answer, calls.Opened):
            child = Client(Channel(socket.socket(fileno=received[0])), answer.id)
            root.children.append(child)
            return child


def test_what_the_host_does_not_have_is_enoent(host: HostProcess) -> None:
    root = host.connect()
    for path in ("/dev/null", VFIO_CDEV + "nic0", VFIO_GROUP + "nic0", VFIO_CDEV):
        assert root.call(calls.Open(path=path)) == Failed(errno.ENOENT)
    assert root.call(calls.IoasAlloc()) == Failed(errno.ENOTTY)
    assert root.call(calls.RegisterMemory(vaddr=0, length=4096)) == Failed(errno.EBADF)
    root.close()


def test_a_group_keeps_its_container_until_its_device_is_closed(host: HostProcess) -> None:
    root = host.connect()
    group, container = root.open(VFIO_GROUP + "qat0"), root.open(DEV_VFIO)
    assert group.call(calls.GroupGetDevice(name="qat0")) == Failed(errno.EINVAL)
    assert group.call(calls.GroupSetContainer(container=container.id + 99)) == Failed(errno.EBADF)
    group.done(calls.GroupSetContainer(container=container.id))
    container.done(calls.SetIommu())
    assert group.call(calls.GroupGetDevice(name="qat1")) == Failed(errno.ENODEV)
    device = group.opened(calls.GroupGetDevice(name="qat0"))
    assert group.call(calls.GroupGetDevice(name="qat0")) == Failed(errno.EBUSY)
    assert device.number(calls.GetFeature(feature=Feature.MIGRATION)) == 7
    assert device.call(calls.AttachPt(pt_id=1)) == Failed(errno.ENOTTY)
    assert root.call(calls.Open(path=CDEV)) == Failed(errno.EBUSY)
    group.channel.close()
    assert isinstance(container.call(calls.GetInfo()), calls.Type1Info)
    device.close()
    open_when_free(root)
    assert container.call(calls.GetInfo()) == Failed(errno.EINVAL)
    root.close()


NO_TEXT = calls.encode(calls.Batch((calls.Open(path="/dev/qat0"),))).replace(b"qat0", b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        struct.pack("<I", 5) + b"hello",
        struct.pack("<I", 0),
        struct.pack("<I", len(NO_TEXT)) + NO_TEXT,
    ],
)
def test_a_malformed_message_costs_its_own_channel_only(host: HostProcess, garbage: bytes) -> None:
    good, bad = host.connect(), host.connect()
    iommu = good.open(DEV_IOMMU)
    connection = socket.socket(fileno=os.dup(bad.channel.fileno()))
    connection.sendall(garbage)
    connection.close()
    assert eof(bad)
    assert iommu.number(calls.IoasAlloc()) > 0
    good.close()
    bad.close()


def test_half_a_message_keeps_nobody_waiting(machine: Machine, host: HostProcess) -> None:
    slow = host.connect()
    connection = socket.socket(fileno=os.dup(slow.channel.fileno()))
    body = calls.encode(calls.Batch((calls.Open(path=DEV_IOMMU),)))
    message = struct.pack("<I", len(body)) + body
    connection.sendall(message[:6])
    machine.enable()
    machine.driver.request(0, length=machine.driver.put(INPUTS, packed(b"hello")))
    machine.submit()
    machine.wait(1)
    connection.sendall(message[6:])
    connection.close()
    answer, received = slow.channel.receive()
    assert len(received) == 1
    assert isinstance(calls.answers_decoder.decode(answer).answers[0], calls.Opened)
    os.close(received[0])
    slow.close()


def test_a_client_that_does_not_read_its_answers_stops_only_itself(machine: Machine, host: HostProcess) -> None:
    deaf = host.connect()
    iommu = machine.root.open(DEV_IOMMU)
    many = (calls.IoasIovaRanges(ioas_id=machine.ioas),) * 60_000
    body = calls.encode(calls.Batch(many))
    machine.iommu.channel.send(body)
    assert iommu.number(calls.IoasAlloc()) == 1
    assert deaf.call(calls.Open(path="/nowhere")) == Failed(errno.ENOENT)
    answer, _ = machine.iommu.channel.receive()
    assert len(answer) > 1 << 21
    deaf.close()


def test_a_query_of_the_whole_address_space_is_as_small_as_what_was_written(machine: Machine) -> None:
    machine.iommu.done(calls.HwptSetDirtyTracking(hwpt_id=machine.hwpt, enable=True))
    machine.enable()
    machine.driver.request(0, length=machine.driver.put(INPUTS, packed(bytes(8192))))
    machine.submit()
    machine.wait(1)
    query = calls.HwptGetDirtyBitmap(
        hwpt_id=machine.hwpt, flags=numbers.GetDirtyFlags.NONE, iova=0, length=1 << 48, page_size=4096
    )
    answers, _ = machine.iommu.batch((query,) * 100)
    assert isinstance(answers[0], calls.Bitmap)
    assert answers[0].bits == 1 << 36
    assert sum(len(part) for _, part in answers[0].parts) < 200
    assert answers[1:] == (calls.Bitmap(bits=1 << 36),) * 99


def test_no_descriptor_is_left_behind(machine: Machine, host: HostProcess) -> None:
    before = host.descriptors()
    for _ in range(20):
        other = host.connect()
        other.open(DEV_IOMMU)
        other.open(DEV_VFIO)
        other.call(calls.Open(path="/nowhere"), (machine.memory, machine.memory))
        machine.device.done(calls.SetEventfds(completion=0, doorbell=1), (machine.completion, machine.doorbell))
        data = machine.device.opened(calls.SetDeviceState(state=DeviceState.PRE_COPY))
        machine.device.done(calls.SetDeviceState(state=DeviceState.RUNNING))
        data.close()
        other.close()
    machine.device.number(calls.GetFeature(feature=Feature.MIGRATION))
    deadline = time.monotonic() + DEADLINE
    while host.descriptors() != before:
        assert time.monotonic() < deadline, f"{host.descriptors()} descriptors, {before} before"
        machine.device.number(calls.GetFeature(feature=Feature.MIGRATION))


def test_eventfds_must_be_eventfds(machine: Machine) -> None:
    call = calls.SetEventfds(completion=0, doorbell=1)
    assert machine.device.call(call, (machine.memory, machine.doorbell)) == Failed(errno.EINVAL)
    assert machine.device.call(call, (machine.completion,)) == Failed(errno.EBADF)


def test_a_process_that_ends_late_leaves_the_socket_of_the_one_that_came_after_it(tmp_path: Path) -> None:
    with running_host(tmp_path) as before, running_host(tmp_path) as after:
        before.process.send_signal(signal.SIGTERM)
        assert before.wait() == 0
        client = after.connect()
        after.process.send_signal(signal.SIGTERM)
        assert after.wait() == 0
        client.close()  # not before: it would end for that, and a signal that meets its very end is its death
        assert not after.path.exists()


def test_the_witness_sees_what_a_device_wrote(machine: Machine) -> None:
    assert machine.root.call(calls.ReportWrites()) == Failed(errno.ENXIO)
    machine.root.done(calls.RegisterMemory(vaddr=0x1000, length=MEMORY_BYTES), (machine.memory,))
    first = machine.root.call(calls.ReportWrites())
    if first == Failed(errno.EOPNOTSUPP):  # so be it, if the kernel says the same to this process
        with pytest.raises(WitnessUnavailable):
            WriteWitness(MemoryFile(machine.memory, MEMORY_BYTES).address, MEMORY_BYTES)
        return
    assert first == calls.Data(memoryview(b"\xff" * (MEMORY_BYTES // 4096 // 8)))
    machine.enable()
    machine.driver.request(0, length=machine.driver.put(INPUTS, packed(bytes(8192))))
    machine.submit()
    machine.wait(1)
    report = machine.root.call(calls.ReportWrites())
    assert isinstance(report, calls.Data)
    pages = int.from_bytes(report.data, "little")
    assert [page for page in range(MEMORY_BYTES // 4096) if pages >> page & 1] == [0, 0x10, 0x200, 0x201]


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ('{"devices": [{"name": "n", "model": "toaster"}]}', "unknown model 'toaster'; known are"),
        ('{"devices": [{"name": "n", "model": "qat"}, {"name": "n", "model": "qat"}]}', "Two devices are named n"),
        ('{"devices": [], "address_width": 40}', "Address width 40 is not one of 39, 48, 57"),
        ('{"devices": [], "page_size": 8192}', "Page size 8192 is not one of 4096, 16384, 65536"),
        ('{"devices": [], "leaf_size": 16384}', "Leaf size 16384 is not one of 1073741824, 2097152, 4096"),
        ("{}", "devices"),
        ("nonsense", "Configuration of the host is invalid"),
    ],
)
def test_a_configuration_that_cannot_be_had_is_refused_at_start(tmp_path: Path, configuration: str, words: str) -> None:
    command = [sys.executable, "-m", "vfio_host.process.main", "--socket", str(tmp_path / "s"), "--configuration"]
    result = subprocess.run([*command, configuration], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
