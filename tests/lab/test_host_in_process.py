import errno
import os

import pytest

from lab.rehearsal.host_in_process import HostInProcess
from vfio_host.interface import calls
from vfio_host.interface.calls import DeviceConfiguration, Failed, HostConfiguration, Number
from vfio_host.interface.numbers import DEV_IOMMU, VFIO_CDEV, GetDirtyFlags, HwptFlags, MapFlags
from vmm.vfio.host_port import Descriptor, HostCallFailed

SIZE = 1 << 20
IOVA = 0x10_0000


class Attached:
    """One device of a host, its IO address space, and one mapping in it."""

    def __init__(self) -> None:
        self.host = HostInProcess(HostConfiguration(devices=(DeviceConfiguration(name="qat0", model="qat"),)))
        device = self.host.open(VFIO_CDEV + "qat0").descriptor
        opened = self.host.open(DEV_IOMMU)
        self.iommu: Descriptor = opened.descriptor
        dev_id = _number(device.call(calls.BindIommufd(iommufd=opened.id)))
        self.ioas = _number(self.iommu.call(calls.IoasAlloc()))
        alloc = calls.HwptAlloc(flags=HwptFlags.DIRTY_TRACKING, dev_id=dev_id, pt_id=self.ioas)
        self.hwpt = _number(self.iommu.call(alloc))
        device.call(calls.AttachPt(pt_id=self.hwpt))
        self.memory = os.memfd_create("test")
        os.ftruncate(self.memory, SIZE)
        self.map(IOVA)
        self.iommu.call(calls.HwptSetDirtyTracking(hwpt_id=self.hwpt, enable=True))
        self.host.tally.counting = True

    def map(self, iova: int) -> None:
        flags = MapFlags.READ | MapFlags.WRITE
        call = calls.IoasMapFile(ioas_id=self.ioas, flags=flags, file=0, start=0, length=4096, iova=iova)
        self.iommu.call(call, (self.memory,))

    def query(self, flags: GetDirtyFlags = GetDirtyFlags.NONE) -> calls.HwptGetDirtyBitmap:
        return calls.HwptGetDirtyBitmap(hwpt_id=self.hwpt, flags=flags, iova=IOVA, length=4096, page_size=4096)

    def unmap(self, iova: int = IOVA) -> calls.IoasUnmap:
        return calls.IoasUnmap(ioas_id=self.ioas, iova=iova, length=4096)

    @property
    def mapped(self) -> list[list[tuple[int, int, int]]]:
        return [list(mapped) for mapped in self.host.containers()]


def _number(answer: calls.Answer) -> int:
    assert isinstance(answer, Number)
    return answer.value


@pytest.fixture
def attached() -> Attached:
    return Attached()


def test_an_errno_is_an_answer_of_a_batch_and_an_error_of_a_call(attached: Attached) -> None:
    answers = attached.iommu.batch((attached.unmap(0x7000), attached.unmap()))
    assert [isinstance(answer, Failed) for answer in answers] == [True, False]
    with pytest.raises(HostCallFailed, match="ENOENT"):
        attached.iommu.call(attached.unmap())
    with pytest.raises(HostCallFailed, match="EBUSY"):
        attached.host.open(VFIO_CDEV + "qat0")


def test_what_is_mapped_is_seen_until_it_is_unmapped(attached: Attached) -> None:
    attached.map(0x40_0000)
    assert attached.mapped == [[(IOVA, 4096, 0), (0x40_0000, 4096, 0)]]
    attached.iommu.call(attached.unmap())
    assert attached.mapped == [[(0x40_0000, 4096, 0)]]
    attached.host.close()
    assert attached.mapped == []


@pytest.mark.parametrize(("flags", "flushes"), [(GetDirtyFlags.NONE, 1), (GetDirtyFlags.NO_CLEAR, 0)])
def test_a_flush_of_a_query_before_an_unmap_is_counted(attached: Attached, flags: GetDirtyFlags, flushes: int) -> None:
    attached.iommu.batch((attached.query(flags), attached.unmap()))
    assert (attached.host.tally.unmaps, attached.host.tally.flushes) == (1, flushes)


def test_a_sync_is_no_part_of_an_unmap(attached: Attached) -> None:
    attached.iommu.batch((attached.query(),))
    attached.iommu.batch((attached.unmap(),))
    assert (attached.host.tally.unmaps, attached.host.tally.flushes) == (1, 0)


def test_the_unmapping_of_everything_is_not_counted(attached: Attached) -> None:
    attached.iommu.call(calls.IoasUnmap(ioas_id=attached.ioas, iova=0, length=(1 << 64) - 1))
    assert attached.host.tally.unmaps == 0


def test_only_the_next_call_of_its_kind_fails_and_does_nothing(attached: Attached) -> None:
    attached.host.fail_next("unmap")
    assert not isinstance(attached.iommu.batch((attached.query(),))[0], Failed)
    assert attached.iommu.batch((attached.unmap(),)) == [Failed(errno.EIO)]
    assert attached.mapped == [[(IOVA, 4096, 0)]]
    attached.iommu.call(attached.unmap())
    assert attached.mapped == [[]]
