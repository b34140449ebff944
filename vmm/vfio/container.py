"""The hypervisor's side of a container: DMA mappings, and the dirty bits that are read from it.

Calls are queued in their order and sent as one batch by `flush`, which the machine runs after every register write
of the guest, before it takes another step. The order of the calls is what the rules of dirty tracking speak of; that
they travel together is not visible to anybody.

Order at an unmap while tracking is on (semantics 3.5): iommufd's dirty bits die with the mapping, so they are queried
first, without clearing, which spares an IOTLB flush; type1 does both in one call. The mapping is taken away whatever
the query says, because a stale mapping is dangerous; a failed query fails the migration.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from vfio_host.interface.bitmaps import dense
from vfio_host.interface.calls import Answer, AnyCall, Bitmap, Failed
from vfio_host.interface.numbers import PAGE_SIZE
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.vfio.dirty_tracker import Tracker
from vmm.vfio.host_port import Descriptor


class BitmapTooLarge(Exception):
    """The hypervisor refuses a range whose bitmap is over the container's limit, before the kernel is asked."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of RAM that a range of IOVAs maps: what the bits of a query stand for."""

    offset: int
    size: int


class Backend(Protocol):
    """How one kind of container says the same things."""

    descriptor: Descriptor

    def map_call(self, iova: int, run: Run, *, writable: bool) -> AnyCall:
        """Map a run of RAM at an IOVA."""

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """Take a mapping away."""

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """Take every mapping away."""

    def query_call(self, iova: int, size: int, *, clear: bool) -> AnyCall:
        """Read the dirty bits of a mapping."""

    def unmap_and_query(self, iova: int, size: int) -> tuple[tuple[AnyCall, bool], ...]:
        """Take a mapping away without losing its dirty bits; tells which of the calls answers with bits.

        Raises:
            BitmapTooLarge: Nothing was asked of the kernel; the mapping stays.
        """

    def bits_of(self, answer: Answer) -> Bitmap | None:
        """Return the bitmap of a query's answer."""

    def nothing_to_unmap(self, failure: Failed) -> bool:
        """Tell whether an unmap failed only because there was nothing."""

    def set_tracking(self, *, on: bool) -> None:
        """Switch the container's tracker.

        Raises:
            HostCallFailed: The state is as it was.
        """

    def batch_descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that a batch of calls refers to."""


_Then = Callable[[Answer], None]
_BATCH_LIMIT: Final = 8192


class Container:
    """One device's DMA mappings on one backend."""

    def __init__(self, backend: Backend, tracker: Tracker, pages: int) -> None:
        self.tracker: Final = tracker
        self.tracking = False
        self.query_failure: str | None = None
        self.map_failures = 0
        self._backend = backend
        self._dirty = DirtyBitmap(pages)
        self._queue: list[tuple[AnyCall, _Then]] = []

    def map(self, iova: int, run: Run, *, writable: bool) -> None:
        """Queue a mapping. A failure is counted: the guest's DMA to it will fault."""
        call = self._backend.map_call(iova, run, writable=writable)
        self._add(call, self._mapped)

    def unmap(self, iova: int, size: int, backing: Run | None) -> None:
        """Queue an unmapping; with its backing known and tracking on, its dirty bits are kept."""
        if backing is None or not self.tracking:
            self._add(self._backend.unmap_call(iova, size), self._unmapped)
            return
        if self.tracker is Tracker.NONE:
            self._mark(backing)
            self._add(self._backend.unmap_call(iova, size), self._unmapped)
            return
        try:
            calls = self._backend.unmap_and_query(iova, size)
        except BitmapTooLarge as error:
            self._record(str(error))
            return
        for call, has_bits in calls:
            if has_bits:
                self._add(call, lambda answer: self._queried(answer, backing))
            else:
                self._add(call, self._unmapped)

    def unmap_all(self) -> None:
        """Queue the unmapping of everything; precise unmaps of what was dirty came before."""
        for call in self._backend.unmap_all_calls():
            self._add(call, self._unmapped)

    def query(self, iova: int, backing: Run) -> None:
        """Queue a read of a mapping's dirty bits, which clears them."""
        if self.tracker is Tracker.NONE:
            self._mark(backing)
            return
        call = self._backend.query_call(iova, backing.size, clear=True)
        self._add(call, lambda answer: self._queried(answer, backing))

    def set_tracking(self, *, on: bool) -> None:
        """Switch the tracker; a container without one switches only its own mind.

        Raises:
            HostCallFailed: The state is as it was.
        """
        self.flush()
        if on != self.tracking and self.tracker is not Tracker.NONE:
            self._backend.set_tracking(on=on)
        self.tracking = on
        if on:
            self._dirty.clear()
            self.query_failure = None

    def take_dirty(self) -> DirtyBitmap:
        """Return what queries have found since the last call. Flush first."""
        found = self._dirty
        self._dirty = DirtyBitmap(found.pages)
        return found

    def flush(self) -> None:
        """Send what is queued.

        Raises:
            HostGone: What happened of it is unknown; the machine's devices are gone with the host process.
        """
        queue, self._queue = self._queue, []
        if not queue:
            return
        calls = [call for call, _ in queue]
        answers = self._backend.descriptor.batch(calls, self._backend.batch_descriptors())
        for (_, then), answer in zip(queue, answers, strict=True):
            then(answer)

    def _add(self, call: AnyCall, then: _Then) -> None:
        self._queue.append((call, then))
        if len(self._queue) >= _BATCH_LIMIT:
            self.flush()

    def _mapped(self, answer: Answer) -> None:
        if isinstance(answer, Failed):
            self.map_failures += 1

    def _unmapped(self, answer: Answer) -> None:
        if isinstance(answer, Failed) and not self._backend.nothing_to_unmap(answer):
            self._fail("unmap", answer)

    def _queried(self, answer: Answer, backing: Run) -> None:
        if isinstance(answer, Failed):
            self._fail("dirty bitmap query", answer)
            return
        bits = self._backend.bits_of(answer)
        if bits is not None and (bits.runs or bits.parts):
            self._dirty.merge_bits(backing.offset // PAGE_SIZE, -(-backing.size // PAGE_SIZE), dense(bits))

    def _mark(self, backing: Run) -> None:
        self._dirty.set_run(backing.offset // PAGE_SIZE, -(-backing.size // PAGE_SIZE))

    def _fail(self, what: str, answer: Failed) -> None:
        self._record(f"VFIO {what} failed with errno {answer.errno} ({os.strerror(answer.errno)})")

    def _record(self, failure: str) -> None:
        if self.tracking and self.query_failure is None:
            self.query_failure = failure
