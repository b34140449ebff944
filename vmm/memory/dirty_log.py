"""One writer's own log of the pages that it wrote.

How harvests and concurrent writers are ordered
-----------------------------------------------
RAM has two writers in two processes: the machine process (vCPUs, drivers, the hypervisor's own writes) and the host
process (devices). Neither log is shared. Each writer is a single thread that works in steps of at most a
millisecond; a step writes RAM and marks its log before it ends, and a harvest is served by that same thread between
two steps, by swapping the log for an empty one. Therefore:

- a write that a harvest does not report happened in a later step, and is in a later harvest (never lost);
- page contents are read only after the harvest that reported the page has been answered. The answer is a message,
  so the reader sees every write of the steps before it; what is written while the page is read belongs to a later
  harvest, and the page is sent again;
- the last harvest comes after both writers have said that they stopped, so nothing follows it.

No bit is ever cleared in memory that somebody else may set: a read-and-clear of a shared bitmap is not atomic in
Python and would lose writes. tests/properties/test_dirty_tracking.py drives every interleaving of these steps.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.dirty_bitmap import DirtyBitmap

_CHUNK_SHIFT: Final = 15


class DirtyLog:
    """Pages written since the last swap; a byte a page, because setting a byte needs no read.

    Chunks that were written are kept apart, so that a swap costs what was written and not what there is: the flags of
    a terabyte are memory that nobody has touched.
    """

    __slots__ = ("_chunks", "_flags", "enabled")

    def __init__(self, pages: int) -> None:
        self._flags: npt.NDArray[np.uint8] = np.zeros(pages, dtype=np.uint8)
        self._chunks: npt.NDArray[np.uint8] = np.zeros((pages >> _CHUNK_SHIFT) + 1, dtype=np.uint8)
        self.enabled = False

    def mark_run(self, first: int, count: int) -> None:
        """Record that a run of pages was written in this step."""
        if self.enabled and count > 0:
            self._flags[first : first + count] = 1
            self._chunks[first >> _CHUNK_SHIFT : (first + count - 1 >> _CHUNK_SHIFT) + 1] = 1

    def mark_pages(self, pages: npt.NDArray[np.int64]) -> None:
        """Record that these pages were written in this step."""
        if self.enabled:
            self._flags[pages] = 1
            self._chunks[pages >> _CHUNK_SHIFT] = 1

    def swap(self) -> DirtyBitmap:
        """Return what was written since the last swap, and begin anew. Only between two steps of the writer."""
        harvested = DirtyBitmap(len(self._flags))
        for chunk in np.flatnonzero(self._chunks).tolist():
            first = chunk << _CHUNK_SHIFT
            flags = self._flags[first : first + (1 << _CHUNK_SHIFT)]
            harvested.merge_flags(first, flags)
            flags[:] = 0
        self._chunks[:] = 0
        return harvested
