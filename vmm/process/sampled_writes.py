"""What a machine that moves by a stream of its own is asked, and answers, of how much of its memory is written.

::

    MeasureWrites   ... Writes: not yet ... Writes: ended
"""

import msgspec

from vmm.process.request import Request


class MeasureWrites(Request, frozen=True, tag=True, kw_only=True):
    """Begin to find out how much of memory is written within so many milliseconds -> Done; it ends by itself."""

    window_ms: int


class Writes(Request, frozen=True, tag=True, kw_only=True):
    """Ask what the last measurement came to -> WritesMeasured."""


AnyWritesRequest = MeasureWrites | Writes


class WritesMeasured(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What of memory was written, whoever wrote it, by samples of it; nothing yet where that has not ended."""

    ended: bool
    window_ms: int = 0
    """As it was in truth: the process rounds it up to what it can."""
    bytes_per_s: int = 0
