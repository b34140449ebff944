"""Which devices share a container, and which hardware page table each of them gets."""

import errno
from collections.abc import Iterator

import pytest

from tests.vmm.vfio.recording_host import RecordingHost, failing
from vfio_host.interface.calls import (
    AnyCall,
    AttachPt,
    BindIommufd,
    Destroy,
    GetHwInfo,
    GroupSetContainer,
    HwptAlloc,
    HwptGetDirtyBitmap,
    HwptSetDirtyTracking,
    IoasAlloc,
    IoasIovaRanges,
    IoasUnmap,
    SetIommu,
)
from vfio_host.interface.numbers import HwptFlags
from vmm.memory.ram_block import RamBlock
from vmm.rules import Rules
from vmm.vfio.attachment import Attached, Attachments, SpaceKey
from vmm.vfio.dirty_tracker import Tracker
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.ram_pieces import Piece


@pytest.fixture
def ram() -> Iterator[RamBlock]:
    block = RamBlock.create("attachment-test", 1 << 20)
    yield block
    block.close()


class Making:
    """Attachments of one machine, device by device."""

    def __init__(self, ram: RamBlock, host: RecordingHost, rules: Rules | None = None) -> None:
        self.host = host
        self.attachments = Attachments(host, ram, rules or Rules())

    def __call__(self, name: str, space: SpaceKey = None, *, type1: bool = False, mediated: bool = False) -> Attached:
        return self.attachments.attach(name, space, type1=type1, mediated=mediated, migration=True)


@pytest.mark.parametrize("type1", [False, True])
def test_devices_of_one_address_space_share_a_container(ram: RamBlock, *, type1: bool) -> None:
    make = Making(ram, RecordingHost())
    one, other = make("a", type1=type1), make("b", type1=type1)
    assert one.container is other.container
    behind, next_to_it = make("c", 0x20, type1=type1), make("d", 0x28, type1=type1)
    assert len({id(each.container) for each in (one, behind, next_to_it)}) == 3


def test_backends_do_not_share(ram: RamBlock) -> None:
    make = Making(ram, RecordingHost())
    assert make("a").container is not make("b", type1=True).container


def test_containers_share_one_iommufd_with_an_address_space_each(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    make("a", 0x20)
    make("b", 0x28)
    bound = [call.iommufd for call in host.take() if isinstance(call, BindIommufd)]
    assert len(bound) == 2
    assert len(set(bound)) == 1


def test_the_order_of_an_attachment(ram: RamBlock) -> None:
    host = RecordingHost()
    Making(ram, host)("a")
    kinds: list[type[AnyCall]] = [IoasAlloc, IoasIovaRanges, BindIommufd, GetHwInfo, HwptAlloc, AttachPt]
    assert [type(call) for call in host.take() if isinstance(call, tuple(kinds))] == kinds


def test_the_first_page_table_that_suits_is_shared(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    assert make("a").iommu_dirty_tracking
    host.tracking_iommus = False
    assert make("b").iommu_dirty_tracking  # what counts is the table that it got
    assert sum(isinstance(call, HwptAlloc) for call in host.take()) == 1


def test_an_unsuitable_page_table_is_passed_over(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    first = make("a")
    host.tracking_iommus = False
    host.refuse = failing(AttachPt, errno.EINVAL, only=0)
    second = make("b")
    assert (first.iommu_dirty_tracking, second.iommu_dirty_tracking) == (True, False)
    assert first.container is second.container
    assert first.container.tracker is Tracker.IOMMU
    allocated = [call.flags for call in host.take() if isinstance(call, HwptAlloc)]
    assert allocated == [HwptFlags.DIRTY_TRACKING, HwptFlags.NONE]


def test_any_other_errno_is_the_end_of_it(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    make("a")
    host.refuse = failing(AttachPt, errno.EADDRINUSE, only=0)
    with pytest.raises(HostCallFailed, match="EADDRINUSE"):
        make("b")


def test_a_page_table_that_nobody_can_use_is_given_back(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(AttachPt, errno.EBUSY))
    with pytest.raises(HostCallFailed, match="EBUSY"):
        Making(ram, host)("a")
    assert isinstance(host.take()[-1], Destroy)


def test_a_mediated_device_is_attached_to_the_address_space(ram: RamBlock) -> None:
    host = RecordingHost()
    attached = Making(ram, host)("a", mediated=True)
    calls = host.take()
    assert not any(isinstance(call, HwptAlloc | GetHwInfo) for call in calls)
    assert not attached.iommu_dirty_tracking
    assert attached.container.tracker is Tracker.NONE


def test_every_page_table_that_tracks_is_switched_and_asked(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    make("a")
    host.refuse = failing(AttachPt, errno.EINVAL, only=0)
    container = make("b").container
    host.take()
    container.start_tracking(())
    container.unmap(0, 4096, (Piece(0, 0, 4096),))
    container.flush()
    calls = host.take()
    assert [type(call) for call in calls] == [HwptSetDirtyTracking] * 2 + [HwptGetDirtyBitmap] * 2 + [IoasUnmap]
    assert len({call.hwpt_id for call in calls if isinstance(call, HwptSetDirtyTracking)}) == 2


def test_page_tables_are_switched_all_or_none(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    make("a")
    host.refuse = failing(AttachPt, errno.EINVAL, only=0)
    container = make("b").container
    host.take()
    host.refuse = failing(HwptSetDirtyTracking, errno.EIO, only=1)
    with pytest.raises(HostCallFailed) as caught:
        container.start_tracking(())
    assert caught.value.errno == errno.EINVAL
    switched = [(call.hwpt_id, call.enable) for call in host.take() if isinstance(call, HwptSetDirtyTracking)]
    assert [enable for _, enable in switched] == [True, True, False]
    assert switched[0][0] == switched[2][0]


def test_groups_join_a_container_unless_the_kernel_keeps_them_apart(ram: RamBlock) -> None:
    host = RecordingHost()
    make = Making(ram, host)
    first = make("a", type1=True)
    assert sum(isinstance(call, SetIommu) for call in host.take()) == 1
    host.refuse = failing(GroupSetContainer, errno.EINVAL, only=0)
    second = make("b", type1=True)
    assert second.container is not first.container
    assert sum(isinstance(call, SetIommu) for call in host.take()) == 1


@pytest.mark.parametrize(
    ("rules", "counts", "tracker"),
    [
        (Rules(), False, Tracker.PERPETUAL),
        (Rules(type1_is_not_iommu_dirty_tracking=False), True, Tracker.PERPETUAL),
        (Rules(type1_dirty_pages_supported=False), False, Tracker.NONE),
        (
            Rules(type1_dirty_pages_supported=False, type1_is_not_iommu_dirty_tracking=False),
            False,
            Tracker.NONE,
        ),
    ],
)
def test_what_type1s_tracker_counts_for(ram: RamBlock, rules: Rules, tracker: Tracker, *, counts: bool) -> None:
    attached = Making(ram, RecordingHost(), rules)("a", type1=True)
    assert attached.iommu_dirty_tracking is counts
    assert attached.container.tracker is tracker
