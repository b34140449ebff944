"""The graphics processor's state, streamed: registers, then all of local memory from where it lies.

::

    header, HEADER_BYTES   magic 8s | version u32 | zero u32 | local bytes u64 | bytes of the oldest job done u64 |
                           CRC-32 of its output so far u32 | zero u32 | the ring (ring_state) | zeros up to the last
                           4 bytes, which are the CRC-32 of the header before them
    local memory           as it is
    trailer, 4 bytes       CRC-32 of local memory

Neither side ever holds local memory twice beside what the other host's device had: reading copies what one read
returns, writing fills the memory that the device will have. Zeros are not written into memory that is zeros already.
"""

import errno
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vfio_host.devices.ring_state import RING_STATE_BYTES, RingState, decode_ring, encode_ring
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.gpu import MAX_LENGTH, WORD

HEADER_BYTES: Final = 4096
_MAGIC: Final = b"VIADGPU\0"
_VERSION: Final = 1
_FIELDS: Final = struct.Struct("<8sIIQQII")
_CHECKSUM: Final = struct.Struct("<I")
_ZEROS: Final = bytes(64 << 10)


@dataclass(frozen=True, slots=True)
class GpuState:
    """All but local memory: the ring, and how far its oldest job is."""

    ring: RingState
    done: int = 0
    crc: int = 0


def state_size(local_bytes: int) -> int:
    """Return how long the state is."""
    return HEADER_BYTES + local_bytes + _CHECKSUM.size


def encode_header(state: GpuState, local_bytes: int) -> bytes:
    """Return the header."""
    body = _FIELDS.pack(_MAGIC, _VERSION, 0, local_bytes, state.done, state.crc, 0) + encode_ring(state.ring)
    body = body.ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(zlib.crc32(body))


def decode_header(header: bytes, local_bytes: int) -> GpuState:
    """Return the state in a header.

    Raises:
        StateInvalid: It is damaged, of another device, not canonical, or no device can be in that state.
    """
    magic, version, _, size, done, crc, _ = _FIELDS.unpack_from(header)
    if (magic, version) != (_MAGIC, _VERSION):
        raise StateInvalid("State is of another device model or version")
    if size != local_bytes:
        raise StateInvalid(f"State is of a device with {size} bytes of local memory; this one has {local_bytes}")
    state = GpuState(decode_ring(header[_FIELDS.size : _FIELDS.size + RING_STATE_BYTES]), done, crc)
    if done % WORD or done > (MAX_LENGTH if state.ring.in_flight else 0):
        raise StateInvalid(f"State claims that {done} bytes of a job are done")
    if encode_header(state, local_bytes) != header:
        raise StateInvalid("State is damaged or not in canonical form")
    return state


class GpuSource:
    """The state being read, once the device stands still; `describe` tells all but local memory."""

    def __init__(self, local: mmap.mmap, describe: Callable[[], GpuState]) -> None:
        self._local: Final = local
        self._describe: Final = describe
        self._ready = b""
        self._position: int | None = None
        self._crc = 0

    def precopy_info(self) -> PrecopyInfo:
        """Return nothing: there is no pre-copy."""
        return PrecopyInfo(initial_bytes=0, dirty_bytes=0)

    def stop(self) -> None:
        """Let everything be read."""
        self._ready = encode_header(self._describe(), len(self._local))
        self._position = 0

    def read(self, size: int) -> bytes:
        """Return what comes next: of the header, of local memory, or of the trailer."""
        if not self._ready and self._position is not None and self._position < len(self._local):
            data = self._local[self._position : self._position + size]
            self._crc = zlib.crc32(data, self._crc)
            self._position += len(data)
            if self._position == len(self._local):
                self._ready = _CHECKSUM.pack(self._crc)
            return data
        data, self._ready = self._ready[:size], self._ready[size:]
        return data


class GpuSink:
    """The state being written; `take` takes over the registers and the local memory, which begins as zeros."""

    def __init__(self, local: mmap.mmap, take: Callable[[GpuState, mmap.mmap], None]) -> None:
        self._local: Final = local
        self._take: Final = take
        self._head = bytearray()
        self._state: GpuState | None = None
        self._position = 0
        self._crc = 0
        self._tail = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            StateInvalid: The header is no header of this device; none of its bytes count.
            CallRefused: ENOMEM past the end of the state; the bytes are not taken.
        """
        taken = len(self._head) + self._position + len(self._tail)
        if taken + len(data) > state_size(len(self._local)):
            raise CallRefused(errno.ENOMEM, f"State is longer than {state_size(len(self._local))} bytes")
        rest = self._header(memoryview(data))
        room = len(self._local) - self._position
        self._fill(rest[:room])
        self._tail += rest[room:]

    def finish(self) -> None:
        """Take the state over.

        Raises:
            StateInvalid: It is short or damaged.
        """
        if self._state is None or len(self._tail) < _CHECKSUM.size:
            raise StateInvalid(f"State ends short, with {self._position} of {len(self._local)} bytes of local memory")
        if _CHECKSUM.unpack(self._tail) != (self._crc,):
            raise StateInvalid("Local memory is damaged: its checksum is wrong")
        self._take(self._state, self._local)

    def _header(self, data: memoryview) -> memoryview:
        """Take what belongs to the header, and return the rest."""
        missing = HEADER_BYTES - len(self._head)
        if missing > 0:
            self._head += data[:missing]
            try:
                self._check_header(bytes(self._head))
            except StateInvalid:
                self._head.clear()
                raise
        return data[missing:] if missing > 0 else data

    def _check_header(self, head: bytes) -> None:
        if head[: len(_MAGIC)] != _MAGIC[: len(head)]:
            raise StateInvalid("State is of another device model")
        if len(head) == HEADER_BYTES:
            self._state = decode_header(head, len(self._local))

    def _fill(self, data: memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        for start in range(0, len(data), len(_ZEROS)):
            piece = bytes(data[start : start + len(_ZEROS)])
            if piece != _ZEROS[: len(piece)]:
                self._local[self._position + start : self._position + start + len(piece)] = piece
        self._position += len(data)
