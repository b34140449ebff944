"""The hypervisor's side of a container: DMA mappings, and the dirty bits that are read from it.

Calls are queued in their order and sent by `flush`, which the machine runs after every register write of the guest,
before it takes another step. The order of the calls is what the rules of dirty tracking speak of; that they travel
together is not visible to anybody.

Order at an unmap while dirty pages are tracked (semantics 3.5)::

    device logs   unmap -> query     a log of addresses survives; once it is read, no more writes can come
    iommufd       query -> unmap     dirty bits die with the mapping; they are not cleared, which spares a flush
    type1         both in one call
    no tracker    what the mapping stood for counts as written

The mapping is taken away whatever a query says, because a stale mapping is dangerous. Only a bitmap over type1's limit
is refused before the kernel is asked for anything, and then the mapping stays, as it does in QEMU.
"""

from collections import deque
from typing import Final

from vfio_host.interface.calls import Answer, AnyCall, DmaLoggingReport, Failed
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.rules import Rules
from vmm.vfio.backend import Backend, BitmapTooLarge
from vmm.vfio.call_queue import CallQueue
from vmm.vfio.dirty_answers import mark, merge_answer
from vmm.vfio.dirty_tracker import TrackedDevice, Tracker, tracker
from vmm.vfio.dma_logs import ContainerDevice, start_logs, stop_logs
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.mapped_ranges import MappedRanges
from vmm.vfio.ram_pieces import Piece
from vmm.vfio.range_request import RangeRequest

_KEPT_TEXTS: Final = 16
Ranges = tuple[tuple[int, int], ...]


class Container:
    """The DMA mappings of the devices that share an address space and a backend.

    `tracker` is who tracks for them. `failure` is what ends the stream; `failures` are the last texts of whatever went
    wrong, also of what is only reported. `map_failure` is the first mapping that the host refused, `map_failures` how
    many there were, and `unmaps` how often a range was unmapped while dirty pages were tracked.
    """

    def __init__(self, backend: Backend, pages: int, rules: Rules | None = None) -> None:
        self.backend: Final = backend
        self.mapped: Final = MappedRanges()
        self.tracking = False
        self.failure: str | None = None
        self.failures: Final[deque[str]] = deque(maxlen=_KEPT_TEXTS)
        self.map_failure: HostCallFailed | None = None
        self.map_failures = 0
        self.unmaps = 0
        self.tracker = Tracker.NONE
        self._rules: Final = rules or Rules()
        self._devices: Final[list[ContainerDevice]] = []
        self._dirty = DirtyBitmap(pages)
        self._queue: Final = CallQueue(backend.descriptor, backend.batch_descriptors())

    def add_device(self, device: ContainerDevice) -> None:
        """Take note of a device that was attached, and see anew who tracks for all of them (semantics 2.2).

        While dirty pages are tracked no device comes.
        """
        self._devices.append(device)
        devices = [TrackedDevice(has_log=each.has_log) for each in self._devices]
        self.tracker = tracker(devices, container_tracks=self.backend.tracks, type1=self.backend.perpetual)

    def map(self, iova: int, offset: int, size: int, *, writable: bool) -> None:
        """Queue a mapping of a run of RAM. A failure is counted: the guest's DMA to it will fault."""
        call = self.backend.map_call(iova, offset, size, writable=writable)
        request = RangeRequest("vfio_container_dma_map", iova, size, ends_stream=False)
        self._queue.add(self.backend.descriptor, call, request, self._on_map)

    def unmap(self, iova: int, size: int, backing: tuple[Piece, ...] | None, *, ends_stream: bool = True) -> None:
        """Queue an unmapping.

        With its backing told and tracking on, the dirty bits of the range are kept, as those of that RAM. A failure
        `ends_stream` where there is somebody to tell; the memory listener's callers have no ear for it.
        """
        request = RangeRequest("vfio_container_dma_unmap", iova, size, ends_stream, backing or ())
        self.unmaps += self.tracking
        if backing is None or not self.tracking:
            self._unmap(request)
            return
        match self.tracker:
            case Tracker.DEVICE_LOG:
                self._unmap(request)
                self._query(request, clear=True)
            case Tracker.IOMMU if self._rules.query_before_unmap:
                self._query(request, clear=not self._rules.no_clear_on_unmap_query)
                self._unmap(request)
            case Tracker.IOMMU:
                self._unmap(request)
                self._query(request, clear=True)
            case Tracker.PERPETUAL:
                self._unmap_with_bits(request)
            case Tracker.NONE:
                mark(self._dirty, backing)
                self._unmap(request)

    def unmap_all(self) -> None:
        """Queue the unmapping of everything; precise unmaps of what was dirty came before."""
        request = RangeRequest("vfio_container_dma_unmap", 0, 1 << 64, ends_stream=False)
        for call in self.backend.unmap_all_calls():
            self._queue.add(self.backend.descriptor, call, request, self._on_unmap)

    def query(self, iova: int, size: int, backing: tuple[Piece, ...]) -> None:
        """Queue a read of a range's dirty bits, which clears them."""
        if self.tracker is Tracker.NONE:
            mark(self._dirty, backing)
            return
        request = RangeRequest("vfio_container_query_dirty_bitmap", iova, size, ends_stream=True, backing=backing)
        self._query(request, clear=True)

    @property
    def synchronised(self) -> bool:
        """Whether a harvest reads this container: it is tracking, and each device can migrate (semantics 2.4)."""
        return self.tracking and all(device.migratable for device in self._devices)

    def start_tracking(self, log_ranges: Ranges) -> None:
        """Start whoever tracks; `log_ranges` are what devices are to log, should it be they. What was found is dropped.

        Raises:
            HostCallFailed: Nothing tracks. The text is what the stream ends with.
        """
        self.flush()
        try:
            if self.tracker is Tracker.DEVICE_LOG:
                start_logs(self._devices, self.backend.page_size, log_ranges)
            elif self.tracker is not Tracker.NONE:
                self.backend.set_tracking(on=True)
        except HostCallFailed as error:
            text = f"vfio: Could not start dirty page tracking - {error}"
            raise HostCallFailed(error.call, error.errno, text) from error
        self.tracking = True
        self._dirty.clear()
        self.failure = None

    def stop_tracking(self) -> None:
        """Stop whoever tracks, if anybody does. A failure is only reported."""
        self.flush()
        if not self.tracking:
            return
        self.tracking = False
        if self.tracker is Tracker.DEVICE_LOG:
            self.failures.extend(stop_logs(self._devices))
        elif self.tracker is not Tracker.NONE:
            try:
                self.backend.set_tracking(on=False)
            except HostCallFailed as error:
                self.failures.append(f"vfio: Could not stop dirty page tracking - {error}")

    def take_dirty(self) -> DirtyBitmap:
        """Return what queries have found since the last call. Flush first."""
        found = self._dirty
        self._dirty = DirtyBitmap(found.pages)
        return found

    def take_failures(self) -> list[str]:
        """Return the last texts of what went wrong since the last call."""
        texts = list(self.failures)
        self.failures.clear()
        return texts

    def flush(self) -> None:
        """Send what is queued.

        Raises:
            HostGone: What happened of it is unknown; the machine's devices are gone with the host process.
        """
        self._queue.flush()

    def _unmap(self, request: RangeRequest) -> None:
        call = self.backend.unmap_call(request.iova, request.size)
        self._queue.add(self.backend.descriptor, call, request, self._on_unmap)

    def _unmap_with_bits(self, request: RangeRequest) -> None:
        try:
            call = self.backend.unmap_with_bits_call(request.iova, request.size)
        except BitmapTooLarge as error:
            self._report(request.too_large(str(error)), ends_stream=request.ends_stream)
            return
        self._queue.add(self.backend.descriptor, call, request, self._on_unmap_with_bits)

    def _query(self, request: RangeRequest, *, clear: bool) -> None:
        if self.tracker is Tracker.DEVICE_LOG:
            call = DmaLoggingReport(iova=request.iova, length=request.size, page_size=self.backend.page_size)
            for device in self._devices:
                self._queue.add(device.descriptor, call, request, self._on_query)
        else:
            for query in self.backend.query_calls(request.iova, request.size, clear=clear):
                self._queue.add(self.backend.descriptor, query, request, self._on_query)

    def _on_map(self, answer: Answer, call: AnyCall, request: RangeRequest) -> None:
        if not isinstance(answer, Failed):
            self.mapped.add(request.iova, request.size)
            return
        self.map_failures += 1
        text = request.failed(answer.errno)
        self._report(text, ends_stream=False)
        if self.map_failure is None:
            self.map_failure = HostCallFailed(call, answer.errno, text)

    def _on_unmap(self, answer: Answer, _call: AnyCall, request: RangeRequest) -> None:
        if isinstance(answer, Failed) and not self.backend.nothing_to_unmap(answer):
            self._report(request.failed(answer.errno), ends_stream=request.ends_stream)
        else:
            self.mapped.remove(request.iova, request.size)

    def _on_unmap_with_bits(self, answer: Answer, call: AnyCall, request: RangeRequest) -> None:
        self._on_unmap(answer, call, request)
        self._merge(answer, request)

    def _on_query(self, answer: Answer, _call: AnyCall, request: RangeRequest) -> None:
        if isinstance(answer, Failed):
            ends_stream = request.ends_stream and self._rules.fail_on_query_error
            self._report(request.failed(answer.errno), ends_stream=ends_stream)
        self._merge(answer, request)

    def _merge(self, answer: Answer, request: RangeRequest) -> None:
        bits = self.backend.bits_of(answer)
        if bits is not None:
            merge_answer(self._dirty, bits, self.backend.page_size, request.backing)

    def _report(self, text: str, *, ends_stream: bool) -> None:
        self.failures.append(text)
        if ends_stream and self.tracking and self.failure is None:
            self.failure = text
