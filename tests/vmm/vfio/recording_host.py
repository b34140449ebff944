"""A host that answers as it is told and remembers, in order, what was asked of which of its objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vfio_host.interface.calls import (
    Answer,
    AnyCall,
    BindIommufd,
    Bitmap,
    DirtyPages,
    DmaLoggingReport,
    DmaLoggingStart,
    Done,
    Failed,
    GetFeature,
    GetHwInfo,
    GetInfo,
    GroupGetDevice,
    HwptAlloc,
    HwptGetDirtyBitmap,
    IoasAlloc,
    IoasIovaRanges,
    IovaRanges,
    Number,
    Type1Info,
    UnmapDma,
    Unmapped,
)
from vfio_host.interface.numbers import DirtyPagesFlags, Feature, UnmapFlags
from vmm.vfio.host_port import OpenObject, unless_failed

Refusal = Callable[[str, AnyCall], int | None]
"""The errno that a call on an object of this name answers with, None for success."""


def nothing(_name: str, _call: AnyCall) -> int | None:
    return None


@dataclass
class RecordingHost:
    """Implements `vmm.vfio.host_port.HostPort`; `asked` holds (object's name, call)."""

    page_size: int = 4096
    refuse: Refusal = nothing
    logs: frozenset[str] = frozenset()
    tracking_iommus: bool = True
    bits: Bitmap = field(default_factory=lambda: Bitmap(64, parts=((0, b"\x05"),)))
    asked: list[tuple[str, AnyCall]] = field(default_factory=list)
    opened: int = 0

    def open(self, path: str) -> OpenObject:
        return self.object(path.rsplit("/", 1)[-1])

    def object(self, name: str) -> OpenObject:
        self.opened += 1
        return OpenObject(self.opened, RecordingDescriptor(self, name))

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        raise AssertionError

    def report_writes(self) -> bytes | None:
        return None

    def answer(self, name: str, call: AnyCall) -> Answer:
        self.asked.append((name, call))
        errno = self.refuse(name, call)
        return Failed(errno) if errno else self._success(name, call)

    def take(self) -> list[AnyCall]:
        """Return what was asked since the last time."""
        asked, self.asked[:] = [call for _, call in self.asked], []
        return asked

    def _success(self, name: str, call: AnyCall) -> Answer:
        answer: Answer = Done()
        match call:
            case IoasAlloc() | HwptAlloc() | BindIommufd():
                self.opened += 1
                answer = Number(self.opened)
            case GetHwInfo():
                answer = Number(int(self.tracking_iommus))
            case IoasIovaRanges():
                answer = IovaRanges(((0, (1 << 48) - 1),), self.page_size)
            case GetInfo():
                sizes = (1 << 64) - self.page_size
                answer = Type1Info(sizes, self.page_size, 1 << 28, 65535, ((0, (1 << 48) - 1),), unmap_all=True)
            case HwptGetDirtyBitmap() | DmaLoggingReport() | DirtyPages(flags=DirtyPagesFlags.GET_BITMAP):
                answer = self.bits
            case DmaLoggingStart():
                answer = Number(call.page_size)
            case UnmapDma():
                answer = Unmapped(call.size, self.bits if call.flags & UnmapFlags.GET_DIRTY_BITMAP else None)
            case GetFeature(feature=Feature.DMA_LOGGING_START):
                answer = Done() if name in self.logs else Failed(25)
            case GetFeature():
                answer = Number(7)
            case _:
                pass
        return answer


@dataclass(frozen=True)
class RecordingDescriptor:
    """Implements `vmm.vfio.host_port.Descriptor`."""

    host: RecordingHost
    name: str

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        del descriptors
        return [self.host.answer(self.name, call) for call in calls]

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        return unless_failed(call, self.batch([call], descriptors)[0])

    def open(self, call: AnyCall) -> OpenObject | None:
        self.call(call)
        return self.host.object(call.name) if isinstance(call, GroupGetDevice) else None

    def close(self) -> None:
        return


def failing(kind: type[AnyCall], errno: int, *, only: int | None = None) -> Refusal:
    """Let calls of a kind fail: all of them, or only the one with this number, from 0."""
    seen = [-1]

    def refuse(_name: str, call: AnyCall) -> int | None:
        if not isinstance(call, kind):
            return None
        seen[0] += 1
        return errno if only in {None, seen[0]} else None

    return refuse
