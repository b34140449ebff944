"""A message holds what it holds: what would not fit is refused before anything is lost, and all else is answered."""

import errno
import os
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from vfio_host.interface import calls, numbers
from vfio_host.interface.calls import Answer, AnyCall, DeviceConfiguration, Failed, HostConfiguration
from vfio_host.interface.numbers import DEV_IOMMU, VFIO_CDEV, MapFlags
from vfio_host.process.batch import answer
from vfio_host.process.host import Host
from vfio_host.process.iommu_files import IommuFile
from vfio_host.process.open_file import OpenFile, Opening, Received, carried_out

PAGE, TIB = 4096, 1 << 40
LIMIT = 64 << 10


def never_published(_file: OpenFile) -> int:
    raise AssertionError("nothing is opened here")


class Machine:
    """A host in this process, with a terabyte mapped for a device whose writes are tracked."""

    def __init__(self) -> None:
        self.host = Host(HostConfiguration(devices=(DeviceConfiguration(name="qat0", model="qat"),)))
        iommu, device = self.host.open(DEV_IOMMU), self.host.open(VFIO_CDEV + "qat0")
        assert isinstance(iommu.file, IommuFile)
        self.iommu, self.device = iommu.file, device.file
        dev_id = self.number(self.device, calls.BindIommufd(iommufd=iommu.id))
        ioas = self.number(self.iommu, calls.IoasAlloc())
        flags = numbers.HwptFlags.DIRTY_TRACKING
        self.hwpt = self.number(self.iommu, calls.HwptAlloc(flags=flags, dev_id=dev_id, pt_id=ioas))
        descriptor = os.memfd_create("test-ram")
        os.ftruncate(descriptor, TIB)
        both = MapFlags.READ | MapFlags.WRITE
        mapping = calls.IoasMapFile(ioas_id=ioas, flags=both, file=0, start=0, length=TIB, iova=TIB)
        assert self.iommu.call(mapping, Received((descriptor,))) == calls.Done()
        os.close(descriptor)
        self.iommu.call(calls.HwptSetDirtyTracking(hwpt_id=self.hwpt, enable=True), Received(()))
        for page in range(0, 1 << 28, 1 << 18):
            self.iommu.context.table_of(self.hwpt).write(TIB + page * PAGE, b"x")

    def number(self, file: OpenFile, call: AnyCall) -> int:
        found = file.call(call, Received(()))
        assert isinstance(found, calls.Number)
        return found.value

    def query(self, flags: numbers.GetDirtyFlags = numbers.GetDirtyFlags.NONE) -> calls.HwptGetDirtyBitmap:
        return calls.HwptGetDirtyBitmap(hwpt_id=self.hwpt, flags=flags, iova=TIB, length=TIB, page_size=PAGE)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr("vfio_host.process.batch.MAX_MESSAGE", LIMIT)
    made = Machine()
    yield made
    made.device.release()
    made.iommu.release()


def batch(file: OpenFile, made: Sequence[AnyCall]) -> tuple[Answer, ...]:
    body, descriptors = answer(file, calls.encode(calls.Batch(tuple(made))), (), never_published)
    assert descriptors == []
    assert len(body) <= LIMIT
    return calls.answers_decoder.decode(body).answers


def test_queries_are_answered_until_the_message_is_full_and_the_rest_keeps_its_bits(machine: Machine) -> None:
    answers = batch(machine.iommu, [machine.query(numbers.GetDirtyFlags.NO_CLEAR)] * 20)
    answered = [found for found in answers if isinstance(found, calls.Bitmap)]
    assert all(count_ones_of(found) == 1024 for found in answered)
    assert len(answered) < 20
    assert answers[len(answered) :] == (Failed(errno.ENOMEM),) * (20 - len(answered))
    filler = [machine.query(numbers.GetDirtyFlags.NO_CLEAR)] * len(answered)
    assert batch(machine.iommu, [*filler, machine.query()])[-1] == Failed(errno.ENOMEM)
    whole, empty = batch(machine.iommu, [machine.query(), machine.query()])
    assert isinstance(whole, calls.Bitmap)
    assert count_ones_of(whole) == 1024
    assert empty == calls.Bitmap(bits=TIB // PAGE)


def count_ones_of(bitmap: calls.Bitmap) -> int:
    """Count without building a terabyte's bitmap."""
    assert bitmap.runs == ()
    return sum(int.from_bytes(part, "little").bit_count() for _, part in bitmap.parts)


def test_the_smallest_answers_do_not_overflow_either(machine: Machine) -> None:
    answers = batch(machine.iommu, [calls.IoasAlloc()] * 1500)
    assert {type(found) for found in answers} == {calls.Number, Failed}
    assert answers[-1] == Failed(errno.ENOMEM)
    with pytest.raises(msgspec.DecodeError, match="Batch of 2000 calls"):
        batch(machine.iommu, [calls.IoasAlloc()] * 2000)


def test_a_read_takes_what_fits(machine: Machine) -> None:
    opened = machine.device.call(calls.SetDeviceState(state=numbers.DeviceState.STOP_COPY), Received(()))
    assert isinstance(opened, Opening)
    read = calls.ReadData(size=1 << 62)
    (first, *_) = batch(opened.file, [read, read])
    assert isinstance(first, calls.Data)
    assert first.data


def test_a_refusal_is_an_answer(machine: Machine) -> None:
    received = Received(())
    assert carried_out(machine.iommu, calls.Destroy(id=99), received) == Failed(errno.ENOENT)
    assert carried_out(machine.iommu, calls.Reset(), received) == Failed(errno.ENOTTY)
    received = Received((), room=10)
    assert carried_out(machine.iommu, machine.query(), received) == Failed(errno.ENOMEM)
    found = carried_out(machine.iommu, machine.query(), Received(()))
    assert isinstance(found, calls.Bitmap)
    assert count_ones_of(found) == 1024


def test_the_kernels_witness_is_not_taken_where_it_does_not_fit(machine: Machine) -> None:
    root, descriptor = machine.host.connect(), os.memfd_create("test-ram")
    os.ftruncate(descriptor, 4 << 30)
    root.call(calls.RegisterMemory(vaddr=0, length=4 << 30), Received((descriptor,)))
    os.close(descriptor)
    assert batch(root, [calls.ReportWrites()]) == (Failed(errno.ENOMEM),)


def test_a_user_address_without_memory_is_the_last_thing_that_is_wrong(machine: Machine) -> None:
    both = MapFlags.READ | MapFlags.WRITE
    good = calls.IoasMap(ioas_id=2, flags=both, user_va=0x1000, length=PAGE, iova=0)
    wrong = {
        errno.EFAULT: good,
        errno.ENOENT: calls.IoasMap(ioas_id=99, flags=both, user_va=0x1000, length=PAGE, iova=0),
        errno.EINVAL: calls.IoasMap(ioas_id=2, flags=both, user_va=0x1001, length=PAGE, iova=0),
        errno.EEXIST: calls.IoasMap(ioas_id=2, flags=both, user_va=0x1000, length=PAGE, iova=TIB),
        errno.EOPNOTSUPP: calls.IoasMap(ioas_id=2, flags=MapFlags.VADDR, user_va=0x1000, length=PAGE, iova=0),
    }
    for number, call in wrong.items():
        assert carried_out(machine.iommu, call, Received(())) == Failed(number)
