"""The accelerator's state: the block of STATE_BYTES in which it moves, read and written.

::

    setup part, 64 bytes   magic 8s | version u32 | in-flight limit u32 | zeros | CRC-32 of what stands before it
    body                   the ring (ring_state) | zeros up to the last 4 bytes, which are the CRC-32 of the body
                           before them

The setup part says what the device is and never changes, so it can be sent while the device runs (PRE_COPY); the rest
follows in STOP_COPY. The encoding is canonical: what decodes, encodes to the same bytes.
"""

import errno
import struct
import zlib
from collections.abc import Callable
from typing import Final

from vfio_host.devices.ring_state import RING_STATE_BYTES, RingState, decode_ring, encode_ring
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.qat import IN_FLIGHT, STATE_BYTES

SETUP_BYTES: Final = 64
_MAGIC: Final = b"VIADQAT\0"
_VERSION: Final = 1
_SETUP: Final = struct.Struct("<8sII44x")
_CHECKSUM: Final = struct.Struct("<I")


def setup_part() -> bytes:
    """Return the part that every device of this model and version has in common."""
    body = _SETUP.pack(_MAGIC, _VERSION, IN_FLIGHT)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def encode(state: RingState) -> bytes:
    """Return the state block."""
    body = encode_ring(state).ljust(STATE_BYTES - SETUP_BYTES - _CHECKSUM.size, b"\0")
    return setup_part() + body + _CHECKSUM.pack(zlib.crc32(body))


def check_setup(data: bytes) -> None:
    """Check as much of the setup part as has come.

    Raises:
        StateInvalid: It is of another model, version or size of device.
    """
    ours = setup_part()
    if data[:SETUP_BYTES] != ours[: len(data)]:
        raise StateInvalid("State is of another device model or version")


def decode(block: bytes) -> RingState:
    """Return the state in a block.

    Raises:
        StateInvalid: It is short, long, damaged, of another device, or not in canonical form.
    """
    if len(block) != STATE_BYTES:
        raise StateInvalid(f"State has {len(block)} bytes, not {STATE_BYTES}")
    check_setup(block)
    body = block[SETUP_BYTES : -_CHECKSUM.size]
    if _CHECKSUM.unpack(block[-_CHECKSUM.size :]) != (zlib.crc32(body),):
        raise StateInvalid("State is damaged: its checksum is wrong")
    state = decode_ring(body[:RING_STATE_BYTES])
    if encode(state) != block:
        raise StateInvalid("State is not in canonical form")
    return state


class QatSource:
    """The block being read: the setup part only, until the device stands still. `block` makes the whole."""

    def __init__(self, block: Callable[[], bytes]) -> None:
        self._make: Final = block
        self._block: bytes | None = None
        self._position = 0

    def precopy_info(self) -> PrecopyInfo:
        """Return what is left of the setup part; nothing of this state grows (semantics 7.10)."""
        return PrecopyInfo(initial_bytes=SETUP_BYTES - self._position, dirty_bytes=0)

    def stop(self) -> None:
        """Give the rest of the block."""
        self._block = self._make()

    def read(self, size: int) -> bytes:
        """Return what comes next."""
        block = setup_part() if self._block is None else self._block
        data = block[self._position : self._position + size]
        self._position += len(data)
        return data


class QatSink:
    """The block being written; `take` takes over the state in it."""

    def __init__(self, take: Callable[[RingState], None]) -> None:
        self._take: Final = take
        self._block = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            StateInvalid: The setup part is another device's; the bytes are not taken.
            CallRefused: ENOMEM past STATE_BYTES (semantics 7.10); the bytes are not taken.
        """
        if len(self._block) + len(data) > STATE_BYTES:
            raise CallRefused(errno.ENOMEM, f"State is longer than {STATE_BYTES} bytes")
        check_setup(bytes(self._block) + data)
        self._block += data

    def finish(self) -> None:
        """Take the state over.

        Raises:
            StateInvalid: It is short, damaged, or not in canonical form.
        """
        self._take(decode(bytes(self._block)))
