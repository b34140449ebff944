"""What a machine process that takes over from another asks of the host: whose the mappings and interrupts are."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfio_host.host_process import Client, new_memory, running_host
from vfio_host.interface import calls
from vfio_host.interface.calls import DeviceConfiguration, Failed, HostConfiguration, Number
from vfio_host.interface.channel import close_all
from vfio_host.interface.numbers import (
    DEV_IOMMU,
    DEV_KVM,
    DEV_VFIO,
    VFIO_CDEV,
    VFIO_GROUP,
    Extension,
    HwptFlags,
    MapFlags,
    UnmapFlags,
)

SIZE, ADDRESS = 1 << 20, 0x7F00_0000_0000
BOTH = MapFlags.READ | MapFlags.WRITE
DEVICE = DeviceConfiguration(name="qat0", model="qat")

ANOTHER = """
import socket, sys
from vfio_host.interface import calls
from vfio_host.interface.channel import Channel
from vfio_host.interface.numbers import MapFlags
channels = [Channel(socket.socket(fileno=int(number))) for number in sys.argv[1:3]]
own = {"register": calls.MapDma(flags=MapFlags.VADDR, vaddr=1 << 30, iova=0, size=1 << 20),
       "change": calls.IoasChangeProcess()}
for channel, call in zip(channels, (own[sys.argv[3]], calls.LockedMemory()), strict=True):
    channel.set_deadline(20)
    channel.send(calls.encode(calls.Batch((call,))))
    print(calls.answers_decoder.decode(channel.receive()[0]).answers[0])
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Client]:
    with running_host(tmp_path, HostConfiguration(devices=(DEVICE,))) as host:
        client = host.connect()
        yield client
        client.close()


def in_another_process(opened: Client, root: Client, what: str) -> list[str]:
    """Make a call from a process that these descriptors are passed to, and then ask what it has locked."""
    numbers = [client.channel.fileno() for client in (opened, root)]
    command = [sys.executable, "-c", ANOTHER, *map(str, numbers), what]
    done = subprocess.run(command, pass_fds=numbers, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def address_space(root: Client) -> tuple[Client, int]:
    """Return an iommufd and its address space, which has a page table."""
    iommu, device = root.open(DEV_IOMMU), root.open(VFIO_CDEV + "qat0")
    dev_id = device.number(calls.BindIommufd(iommufd=iommu.id))
    ioas = iommu.number(calls.IoasAlloc())
    hwpt = iommu.number(calls.HwptAlloc(flags=HwptFlags.DIRTY_TRACKING, dev_id=dev_id, pt_id=ioas))
    device.done(calls.AttachPt(pt_id=hwpt))
    return iommu, ioas


def test_type1_mappings_become_those_of_the_process_that_registers_its_address(root: Client) -> None:
    group, container, memory = root.open(VFIO_GROUP + "qat0"), root.open(DEV_VFIO), new_memory(SIZE)
    group.done(calls.GroupSetContainer(container=container.id))
    container.done(calls.SetIommu())
    root.done(calls.RegisterMemory(vaddr=ADDRESS, length=SIZE), (memory,))
    container.done(calls.MapDma(flags=BOTH, vaddr=ADDRESS, iova=0, size=SIZE))
    assert container.number(calls.CheckExtension(extension=Extension.UPDATE_VADDR)) == 1
    assert root.number(calls.LockedMemory()) == SIZE
    everything = calls.UnmapDma(flags=UnmapFlags.ALL | UnmapFlags.VADDR, iova=0, size=0)
    assert container.call(everything) == calls.Unmapped(size=SIZE)
    assert in_another_process(container, root, "register") == ["Done()", f"Number(value={SIZE})"]
    assert root.number(calls.LockedMemory()) == 0
    os.close(memory)


def test_iommufd_mappings_by_file_become_those_of_the_process_that_asks(root: Client) -> None:
    iommu, ioas = address_space(root)
    memory = new_memory(SIZE)
    iommu.done(calls.IoasMapFile(ioas_id=ioas, flags=BOTH, file=0, start=0, length=SIZE, iova=0), (memory,))
    assert root.number(calls.LockedMemory()) == SIZE
    assert in_another_process(iommu, root, "change") == ["Done()", f"Number(value={SIZE})"]
    assert root.number(calls.LockedMemory()) == 0
    iommu.done(calls.IoasChangeProcess())
    assert root.number(calls.LockedMemory()) == SIZE
    os.close(memory)


def test_one_mapping_by_address_forbids_the_change_for_all(root: Client) -> None:
    iommu, ioas = address_space(root)
    memory = new_memory(SIZE)
    root.done(calls.RegisterMemory(vaddr=ADDRESS, length=SIZE), (memory,))
    iommu.done(calls.IoasMapFile(ioas_id=ioas, flags=BOTH, file=0, start=0, length=SIZE, iova=0), (memory,))
    other = iommu.number(calls.IoasAlloc())
    iommu.done(calls.IoasMap(ioas_id=other, flags=BOTH, user_va=ADDRESS, length=SIZE, iova=0))
    assert in_another_process(iommu, root, "change") == [f"Failed(errno={errno.EINVAL})", "Number(value=0)"]
    assert root.number(calls.LockedMemory()) == SIZE, "a space without a page table locks nothing"
    os.close(memory)


def test_a_kernel_from_before_the_change_of_process_does_not_know_it(tmp_path: Path) -> None:
    with running_host(tmp_path, HostConfiguration(devices=(DEVICE,), change_process=False)) as host:
        client = host.connect()
        assert client.open(DEV_IOMMU).call(calls.IoasChangeProcess()) == Failed(errno.ENOTTY)
        client.close()


def test_an_eventfd_raises_an_interrupt_of_one_machine_until_that_is_closed(root: Client) -> None:
    eventfd, other = os.eventfd(0), os.eventfd(0)
    old, new = root.open(DEV_KVM), root.open(DEV_KVM)
    again = os.dup(eventfd)  # another descriptor, the same eventfd
    assign = calls.Irqfd(eventfd=0, gsi=24)
    old.done(assign, (eventfd,))
    new.done(assign, (other,))
    for machine in (old, new):
        assert machine.call(assign, (again,)) == Failed(errno.EBUSY)
    old.channel.close()
    while (answer := new.call(assign, (again,))) == Failed(errno.EBUSY):
        pass  # until the host has seen the other end closed
    assert answer == calls.Done()
    new.done(calls.Irqfd(eventfd=0, gsi=24, assign=False), (eventfd,))
    assert new.call(calls.Irqfd(eventfd=0, gsi=24, assign=False), (eventfd,)) == Failed(errno.ENOENT)
    for descriptor in (eventfd, other, again):
        os.close(descriptor)


def test_what_is_no_eventfd_raises_no_interrupt(root: Client) -> None:
    machine, memory = root.open(DEV_KVM), new_memory(4096)
    assert machine.call(calls.Irqfd(eventfd=0, gsi=1), (memory,)) == Failed(errno.EINVAL)
    assert machine.call(calls.Irqfd(eventfd=0, gsi=1)) == Failed(errno.EBADF)
    assert machine.call(calls.LockedMemory()) == Failed(errno.ENOTTY)
    assert isinstance(root.call(calls.LockedMemory()), Number)
    os.close(memory)


def test_a_call_that_comes_with_the_connection_is_its_callers_too(tmp_path: Path) -> None:
    """A call can be there before its connection is accepted, and while it is."""
    memory = new_memory(4096)
    with running_host(tmp_path, HostConfiguration(devices=(DEVICE,))) as host:
        first = host.connect()
        iommu = first.open(DEV_IOMMU)
        ioas = iommu.number(calls.IoasAlloc())
        for page in range(300):
            client, address = host.connect(), ADDRESS + page * 4096
            client.done(calls.RegisterMemory(vaddr=address, length=4096), (memory,))
            iommu.done(calls.IoasMap(ioas_id=ioas, flags=BOTH, user_va=address, length=4096, iova=page * 4096))
            client.close()
        first.close()
    os.close(memory)


def test_two_descriptors_of_one_file_are_that_file_until_both_are_closed(root: Client) -> None:
    iommu = root.open(DEV_IOMMU)
    ioas = iommu.number(calls.IoasAlloc())
    other = iommu.opened(calls.Dup())
    assert isinstance(other.call(calls.IoasIovaRanges(ioas_id=ioas)), calls.IovaRanges)
    device = root.open(VFIO_CDEV + "qat0")
    again = device.opened(calls.Dup())
    device.number(calls.BindIommufd(iommufd=iommu.id))
    iommu.channel.close()
    device.channel.close()
    other.number(calls.IoasAlloc())
    again.done(calls.AttachPt(pt_id=ioas))
    busy = calls.Open(path=VFIO_CDEV + "qat0")
    assert root.call(busy) == Failed(errno.EBUSY)
    again.channel.close()
    while (answered := root.batch((busy,)))[0] == (Failed(errno.EBUSY),):
        pass  # until the host has seen the last one closed
    close_all(answered[1])
