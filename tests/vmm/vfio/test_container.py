"""The order of calls at an unmap, on both backends, against a host that records them."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vfio_host.interface.calls import (
    Answer,
    AnyCall,
    AttachPt,
    BindIommufd,
    Data,
    DirtyPages,
    Done,
    Failed,
    GetHwInfo,
    GetInfo,
    GroupSetContainer,
    HwptAlloc,
    HwptGetDirtyBitmap,
    IoasAlloc,
    IoasMapFile,
    IoasUnmap,
    Number,
    Type1Info,
    UnmapDma,
    Unmapped,
)
from vfio_host.interface.numbers import GetDirtyFlags, UnmapFlags
from vmm.vfio.container import Container, Run
from vmm.vfio.dirty_tracker import Tracker
from vmm.vfio.host_port import HostCallFailed, OpenObject
from vmm.vfio.iommufd_backend import IommufdBackend
from vmm.vfio.type1_backend import Type1Backend

PAGES = 1024


@dataclass
class RecordingHost:
    """Answers as a host with one device would, and remembers what it was asked."""

    calls: list[AnyCall] = field(default_factory=list)
    failures: dict[type[AnyCall], int] = field(default_factory=dict)
    bits: bytes = b"\x05" + bytes(7)

    def open(self, _path: str | AnyCall) -> OpenObject:
        return OpenObject(7, self)

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        raise AssertionError

    def report_writes(self) -> bytes | None:
        return None

    def close(self) -> None:
        return

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> tuple[Answer, ...]:
        del descriptors
        self.calls.extend(calls)
        return tuple(self._answer(call) for call in calls)

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        (answer,) = self.batch([call], descriptors)
        if isinstance(answer, Failed):
            raise HostCallFailed(call, answer.errno)
        return answer

    def _answer(self, call: AnyCall) -> Answer:
        if type(call) in self.failures:
            return Failed(self.failures[type(call)])
        match call:
            case IoasAlloc() | HwptAlloc() | BindIommufd() | GetHwInfo():
                return Number(1)
            case HwptGetDirtyBitmap() | DirtyPages():
                return Data(self.bits)
            case UnmapDma():
                return Unmapped(call.size, self.bits if call.flags & UnmapFlags.GET_DIRTY_BITMAP else b"")
            case GetInfo():
                return Type1Info(4096, 4096, 1 << 28, 65535, ((0, 1 << 48),), unmap_all=True)
            case _:
                return Done()


def iommufd(host: RecordingHost) -> Container:
    backend = IommufdBackend(host, host, ram=3, want_tracking=True, mediated=False)
    assert backend.tracks
    host.calls.clear()
    return Container(backend, Tracker.IOMMU, PAGES)


def type1(host: RecordingHost) -> Container:
    backend = Type1Backend(host, host, ram_address=1 << 32)
    host.calls.clear()
    return Container(backend, Tracker.PERPETUAL, PAGES)


def unmap(make: Callable[[RecordingHost], Container], host: RecordingHost, *, tracking: bool) -> Container:
    container = make(host)
    if tracking:
        container.set_tracking(on=True)
    host.calls.clear()
    container.unmap(0x200000, 3 * 4096, Run(64 * 4096, 3 * 4096))
    container.flush()
    return container


def test_iommufd_queries_without_clearing_before_it_unmaps() -> None:
    host = RecordingHost()
    container = unmap(iommufd, host, tracking=True)
    query, unmapping = host.calls
    assert isinstance(query, HwptGetDirtyBitmap)
    assert query.flags is GetDirtyFlags.NO_CLEAR
    assert isinstance(unmapping, IoasUnmap)
    assert container.take_dirty().indexes().tolist() == [64, 66]


def test_type1_does_both_in_one_call() -> None:
    host = RecordingHost()
    container = unmap(type1, host, tracking=True)
    (call,) = host.calls
    assert isinstance(call, UnmapDma)
    assert call.flags is UnmapFlags.GET_DIRTY_BITMAP
    assert call.bitmap_size == 8
    assert container.take_dirty().indexes().tolist() == [64, 66]


def test_nothing_is_queried_while_tracking_is_off() -> None:
    for make in (iommufd, type1):
        host = RecordingHost()
        container = unmap(make, host, tracking=False)
        assert [type(call) for call in host.calls] in ([IoasUnmap], [UnmapDma])
        assert not container.take_dirty()


def test_a_failed_query_fails_the_migration_and_the_mapping_goes_all_the_same() -> None:
    host = RecordingHost(failures={HwptGetDirtyBitmap: errno.ENOMEM})
    container = unmap(iommufd, host, tracking=True)
    assert isinstance(host.calls[-1], IoasUnmap)
    assert container.query_failure is not None
    assert "errno 12" in container.query_failure


def test_nothing_to_unmap_is_no_failure_on_iommufd() -> None:
    host = RecordingHost(failures={IoasUnmap: errno.ENOENT})
    assert unmap(iommufd, host, tracking=True).query_failure is None


def test_an_unmap_over_the_bitmap_limit_is_refused_before_the_kernel_is_asked() -> None:
    host = RecordingHost()
    container = type1(host)
    container.set_tracking(on=True)
    host.calls.clear()
    container.unmap(1 << 44, 1 << 44, Run(0, 1 << 44))
    container.flush()
    assert host.calls == []
    assert container.query_failure is not None
    assert "E2BIG" in container.query_failure


def test_without_a_tracker_every_queried_range_counts_as_dirty() -> None:
    host = RecordingHost()
    backend = IommufdBackend(host, host, ram=3, want_tracking=False, mediated=False)
    container = Container(backend, Tracker.NONE, PAGES)
    container.set_tracking(on=True)
    container.query(0, Run(0, 2 * 4096))
    container.flush()
    assert container.take_dirty().indexes().tolist() == [0, 1]


def test_calls_keep_their_order_in_one_batch() -> None:
    host = RecordingHost()
    container = iommufd(host)
    container.map(0, Run(0, 4096), writable=True)
    container.unmap(0, 4096, None)
    container.map(0, Run(4096, 4096), writable=False)
    assert host.calls == []
    container.flush()
    assert [type(call) for call in host.calls] == [IoasMapFile, IoasUnmap, IoasMapFile]


def test_the_device_is_attached_to_a_page_table_that_tracks() -> None:
    host = RecordingHost()
    IommufdBackend(host, host, ram=3, want_tracking=True, mediated=False)
    assert [type(call) for call in host.calls] == [IoasAlloc, BindIommufd, GetHwInfo, HwptAlloc, AttachPt]
    host.calls.clear()
    Type1Backend(host, host, ram_address=0)
    assert isinstance(host.calls[0], GroupSetContainer)
