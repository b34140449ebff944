"""The order of calls at an unmap under every tracker and switch, and what becomes of a failure."""

import errno
from collections.abc import Iterator

import pytest

from tests.vmm.vfio.recording_host import RecordingHost, Refusal, failing, nothing
from vfio_host.interface.calls import (
    AnyCall,
    DirtyPages,
    DmaLoggingReport,
    DmaLoggingStart,
    DmaLoggingStop,
    HwptGetDirtyBitmap,
    HwptSetDirtyTracking,
    IoasMapFile,
    IoasUnmap,
    MapDma,
    UnmapDma,
)
from vfio_host.interface.numbers import DirtyPagesFlags, GetDirtyFlags, UnmapFlags
from vmm.memory.ram_block import RamBlock
from vmm.rules import Rules
from vmm.vfio.attachment import Attachments
from vmm.vfio.container import Container
from vmm.vfio.dirty_tracker import Tracker
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.ram_pieces import Piece

PAGE = 4096
IOVA, SIZE, OFFSET = 0x200000, 3 * PAGE, 64 * PAGE
BACKING = (Piece(0, OFFSET, SIZE),)
RANGES = ((0, 1 << 48),)
TIB = 1 << 40
ALL_ON = Rules()


@pytest.fixture
def ram() -> Iterator[RamBlock]:
    block = RamBlock.create("container-test", 1024 * PAGE)
    yield block
    block.close()


def container(ram: RamBlock, host: RecordingHost, rules: Rules = ALL_ON, *names: str, type1: bool = False) -> Container:
    attachments = Attachments(host, ram, rules)
    attached = [
        attachments.attach(name, None, type1=type1, mediated=False, migration=True) for name in names or ("qat0",)
    ]
    assert len({id(each.container) for each in attached}) == 1
    host.take()
    return attached[0].container


def unmapped(made: Container, host: RecordingHost, *, tracking: bool = True) -> list[AnyCall]:
    made.map(IOVA, OFFSET, SIZE, writable=True)
    made.flush()
    if tracking:
        made.start_tracking(RANGES)
    host.take()
    made.unmap(IOVA, SIZE, BACKING)
    made.flush()
    return host.take()


def test_iommufd_queries_without_clearing_before_it_unmaps(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host)
    query, unmapping = unmapped(made, host)
    assert isinstance(query, HwptGetDirtyBitmap)
    assert query.flags is GetDirtyFlags.NO_CLEAR
    assert (query.iova, query.length, query.page_size) == (IOVA, SIZE, PAGE)
    assert isinstance(unmapping, IoasUnmap)
    assert made.take_dirty().indexes().tolist() == [64, 66]
    assert made.unmaps == 1


def test_without_patch_5_the_last_query_clears(ram: RamBlock) -> None:
    host = RecordingHost()
    query, _ = unmapped(container(ram, host, Rules(no_clear_on_unmap_query=False)), host)
    assert isinstance(query, HwptGetDirtyBitmap)
    assert query.flags is GetDirtyFlags.NONE


def test_a_sync_clears_what_it_reads_and_an_unmap_does_not(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host)
    unmapped(made, host)
    made.query(IOVA, SIZE, BACKING)
    made.flush()
    (query,) = host.take()
    assert isinstance(query, HwptGetDirtyBitmap)
    assert query.flags is GetDirtyFlags.NONE


def test_without_patch_2_the_query_comes_too_late(ram: RamBlock) -> None:
    host = RecordingHost()
    calls = unmapped(container(ram, host, Rules(query_before_unmap=False)), host)
    assert [type(call) for call in calls] == [IoasUnmap, HwptGetDirtyBitmap]


def test_type1_does_both_in_one_call(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host, type1=True)
    (call,) = unmapped(made, host)
    assert isinstance(call, UnmapDma)
    assert call.flags is UnmapFlags.GET_DIRTY_BITMAP
    assert call.bitmap_size == 8
    assert made.take_dirty().indexes().tolist() == [64, 66]


@pytest.mark.parametrize("type1", [False, True])
def test_logs_are_asked_after_the_unmap_and_all_of_them(ram: RamBlock, *, type1: bool) -> None:
    host = RecordingHost(logs=frozenset({"nic0", "nic1"}))
    made = container(ram, host, ALL_ON, "nic0", "nic1", type1=type1)
    assert made.tracker is Tracker.DEVICE_LOG
    unmapping, *reports = unmapped(made, host)
    assert isinstance(unmapping, UnmapDma | IoasUnmap)
    assert not isinstance(unmapping, UnmapDma) or unmapping.flags is UnmapFlags.NONE
    assert [type(call) for call in reports] == [DmaLoggingReport] * 2
    assert made.take_dirty().indexes().tolist() == [64, 66]


def test_a_container_of_a_logger_and_another_uses_the_iommu(ram: RamBlock) -> None:
    host = RecordingHost(logs=frozenset({"nic0"}))
    made = container(ram, host, ALL_ON, "nic0", "qat0")
    assert made.tracker is Tracker.IOMMU
    assert [type(call) for call in unmapped(made, host)] == [HwptGetDirtyBitmap, IoasUnmap]


@pytest.mark.parametrize("type1", [False, True])
def test_without_a_tracker_everything_queried_is_dirty_and_the_host_is_not_asked(ram: RamBlock, *, type1: bool) -> None:
    host = RecordingHost(tracking_iommus=False)
    made = container(ram, host, Rules(type1_dirty_pages_supported=False), type1=type1)
    assert made.tracker is Tracker.NONE
    made.start_tracking(RANGES)
    made.query(0, 2 * PAGE, (Piece(0, 0, 2 * PAGE),))
    assert host.take() == []
    assert [type(call) for call in unmapped(made, host)] == [UnmapDma if type1 else IoasUnmap]
    assert made.take_dirty().indexes().tolist() == [64, 65, 66]


@pytest.mark.parametrize("type1", [False, True])
def test_nothing_is_queried_while_tracking_is_off_or_the_backing_is_not_told(ram: RamBlock, *, type1: bool) -> None:
    host = RecordingHost()
    made = container(ram, host, type1=type1)
    assert len(unmapped(made, host, tracking=False)) == 1
    made.start_tracking(RANGES)
    host.take()
    made.unmap(IOVA, SIZE, None)
    made.flush()
    assert len(host.take()) == 1
    assert not made.take_dirty()


def test_a_failed_query_ends_the_stream_and_the_mapping_goes_all_the_same(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(HwptGetDirtyBitmap, errno.EIO))
    made = container(ram, host)
    assert [type(call) for call in unmapped(made, host)] == [HwptGetDirtyBitmap, IoasUnmap]
    assert made.failure == "vfio_container_dma_unmap(0x200000, 0x3000) = -5 (Input/output error)"
    assert not list(made.mapped)


def test_where_a_failed_query_is_only_reported_the_stream_goes_on(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(HwptGetDirtyBitmap, errno.EIO))
    made = container(ram, host, Rules(fail_on_query_error=False))
    unmapped(made, host)
    assert made.failure is None
    assert len(made.failures) == 1


def test_a_report_of_the_log_that_fails_ends_the_stream(ram: RamBlock) -> None:
    host = RecordingHost(logs=frozenset({"nic0"}), refuse=failing(DmaLoggingReport, errno.EINVAL))
    made = container(ram, host, ALL_ON, "nic0")
    made.start_tracking(RANGES)
    made.query(0, PAGE, (Piece(0, 0, PAGE),))
    made.flush()
    assert made.failure == "vfio_container_query_dirty_bitmap(0x0, 0x1000) = -22 (Invalid argument)"


def test_a_failure_that_nobody_can_be_told_is_only_reported(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(IoasUnmap, errno.EIO))
    made = container(ram, host)
    made.map(IOVA, OFFSET, SIZE, writable=True)
    made.start_tracking(RANGES)
    made.unmap(IOVA, SIZE, BACKING, ends_stream=False)
    made.flush()
    assert made.failure is None
    assert list(made.mapped) == [(IOVA, SIZE)]
    assert list(made.failures) == ["vfio_container_dma_unmap(0x200000, 0x3000) = -5 (Input/output error)"]


def test_nothing_to_unmap_is_no_failure_on_iommufd(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(IoasUnmap, errno.ENOENT))
    made = container(ram, host)
    unmapped(made, host)
    assert made.failure is None


def test_type1_unmaps_8_tib_and_refuses_16_before_the_kernel_is_asked(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host, type1=True)
    made.start_tracking(RANGES)
    host.take()
    made.unmap(8 * TIB, 8 * TIB, ())
    made.flush()
    assert len(host.take()) == 1
    assert made.failure is None
    made.unmap(16 * TIB, 16 * TIB, ())
    made.flush()
    assert host.take() == []
    text = "vfio_container_dma_unmap(0x100000000000, 0x100000000000) = -7 (Argument list too long)"
    assert made.failure == f"{text}: UNMAP: Size of bitmap too big 0x20000000"


def test_the_limit_of_type1_follows_the_hosts_page(ram: RamBlock) -> None:
    host = RecordingHost(page_size=1 << 16)
    made = container(ram, host, type1=True)
    made.start_tracking(RANGES)
    made.unmap(0, 128 * TIB, ())
    assert made.failure is None
    made.unmap(0, 128 * TIB + (1 << 16), ())
    assert made.failure is not None


def test_iommufd_has_no_limit(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host)
    made.start_tracking(RANGES)
    host.take()
    made.unmap(16 * TIB, 16 * TIB, ())
    made.flush()
    assert [type(call) for call in host.take()] == [HwptGetDirtyBitmap, IoasUnmap]


def test_calls_keep_their_order(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host)
    made.map(0, 0, PAGE, writable=True)
    made.unmap(0, PAGE, None)
    made.map(0, PAGE, PAGE, writable=False)
    assert host.take() == []
    made.flush()
    assert [type(call) for call in host.take()] == [IoasMapFile, IoasUnmap, IoasMapFile]
    assert list(made.mapped) == [(0, PAGE)]


def test_a_mapping_that_the_host_refuses_is_counted(ram: RamBlock) -> None:
    host = RecordingHost(refuse=failing(MapDma, errno.ENOSPC))
    made = container(ram, host, type1=True)
    made.map(0, 0, PAGE, writable=True)
    made.flush()
    assert made.map_failures == 1
    assert "vfio_container_dma_map(0x0, 0x1000) = -28" in str(made.map_failure)
    assert not list(made.mapped)


@pytest.mark.parametrize(
    ("refuse", "started", "text"),
    [
        (failing(DmaLoggingStart, errno.EINVAL, only=1), [DmaLoggingStart, DmaLoggingStart, DmaLoggingStop], "nic1"),
        (failing(DmaLoggingStart, errno.E2BIG), [DmaLoggingStart], "nic0"),
    ],
)
def test_logs_start_all_or_none(ram: RamBlock, refuse: Refusal, started: list[type[AnyCall]], text: str) -> None:
    host = RecordingHost(logs=frozenset({"nic0", "nic1"}), refuse=nothing)
    made = container(ram, host, ALL_ON, "nic0", "nic1")
    host.refuse = refuse
    with pytest.raises(HostCallFailed) as caught:
        made.start_tracking(RANGES)
    assert [type(call) for call in host.take()] == started
    prefix = f"vfio: Could not start dirty page tracking - {text}: Failed to start DMA logging: "
    assert str(caught.value).startswith(prefix)
    assert not made.tracking


def test_a_tracker_that_does_not_start_leaves_everything_as_it_was(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host, type1=True)
    host.refuse = failing(DirtyPages, errno.EINVAL)
    with pytest.raises(HostCallFailed, match="vfio: Could not start dirty page tracking - "):
        made.start_tracking(RANGES)
    made.stop_tracking()
    assert [call.flags for call in host.take() if isinstance(call, DirtyPages)] == [DirtyPagesFlags.START]


def test_a_stop_that_fails_is_only_reported(ram: RamBlock) -> None:
    for logs in (frozenset[str](), frozenset({"qat0"})):
        host = RecordingHost(logs=logs)
        made = container(ram, host)
        made.start_tracking(RANGES)
        host.refuse = failing(DmaLoggingStop if logs else HwptSetDirtyTracking, errno.EIO)
        made.stop_tracking()
        assert not made.tracking
        assert "stop" in made.failures[-1]


def test_tracking_begins_with_nothing_found(ram: RamBlock) -> None:
    host = RecordingHost()
    made = container(ram, host)
    unmapped(made, host)
    made.start_tracking(RANGES)
    assert not made.take_dirty()


def test_a_container_with_a_device_that_cannot_migrate_is_not_synchronised(ram: RamBlock) -> None:
    attachments = Attachments(RecordingHost(), ram, ALL_ON)
    first = attachments.attach("qat0", None, type1=False, mediated=False, migration=True).container
    first.start_tracking(RANGES)
    assert first.synchronised
    attachments.attach("qat1", None, type1=False, mediated=False, migration=False)
    assert not first.synchronised
    first.stop_tracking()
