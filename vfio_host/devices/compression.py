"""The accelerator's engine: one job, in slices that bound a step and the memory it takes.

A slice makes at most SLICE bytes of output (decompression) or takes at most SLICE of input (compression). Output is
bounded by the request's capacity, whatever the input claims: a bomb ends as OVERFLOW. An engine that is dropped half
way can be begun anew from the same request, and makes the same bytes.
"""

import zlib
from dataclasses import dataclass
from typing import Final

from vfio_host.interface.qat import Operation, Status

DECOMPRESS_SLICE: Final = 64 << 10
COMPRESS_SLICE: Final = 16 << 10
_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice made; `status` is None while there is more to do."""

    output: bytes
    status: Status | None


class Decompression:
    """Inflates one zlib stream."""

    def __init__(self, source: bytes, capacity: int) -> None:
        self._engine = zlib.decompressobj()
        self._pending = source
        self._left = capacity

    def advance(self) -> Slice:
        """Make the next slice of output."""
        bound = min(self._left, DECOMPRESS_SLICE)
        try:
            output = self._engine.decompress(self._pending, bound + 1 if bound == self._left else bound)
        except zlib.error:
            return Slice(b"", Status.BAD_DATA)
        if len(output) > self._left:
            return Slice(b"", Status.OVERFLOW)
        self._left -= len(output)
        self._pending = self._engine.unconsumed_tail
        if self._engine.eof:
            return Slice(output, Status.OK)
        if not output and not self._pending:
            return Slice(b"", Status.BAD_DATA)
        return Slice(output, None)


class Compression:
    """Deflates into one zlib stream, at the level that is quickest."""

    def __init__(self, source: bytes, capacity: int) -> None:
        self._engine = zlib.compressobj(_LEVEL)
        self._source = memoryview(source)
        self._left = capacity

    def advance(self) -> Slice:
        """Take the next slice of input."""
        part, self._source = self._source[:COMPRESS_SLICE], self._source[COMPRESS_SLICE:]
        output = self._engine.compress(part)
        if not self._source:
            output += self._engine.flush()
        if len(output) > self._left:
            return Slice(b"", Status.OVERFLOW)
        self._left -= len(output)
        return Slice(output, None if self._source else Status.OK)


def begin(operation: Operation, source: bytes, capacity: int) -> Decompression | Compression:
    """Return the engine for a job."""
    return (Decompression if operation is Operation.DECOMPRESS else Compression)(source, capacity)
