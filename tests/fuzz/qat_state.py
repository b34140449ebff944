"""The accelerator's migration state (vfio_host.devices.qat_state), written in two pieces as a stream brings it."""

import zlib

from tests.fuzz.target import Target, same
from vfio_host.devices.qat_state import SETUP_BYTES, QatSink, encode
from vfio_host.devices.ring_state import RingState
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.qat import REQUEST, STATE_BYTES


def _read(data: bytes) -> None:
    taken: list[RingState] = []
    sink = QatSink(taken.append)
    sink.write(data[:SETUP_BYTES])
    sink.write(memoryview(data)[SETUP_BYTES:])
    sink.finish()
    same(encode(taken[0]), data)


def _mended(data: bytes) -> bytes:
    body = data[SETUP_BYTES:].ljust(STATE_BYTES, b"\0")[: STATE_BYTES - SETUP_BYTES - 4]
    return data[:SETUP_BYTES] + body + zlib.crc32(body).to_bytes(4, "little")


BUSY = RingState(1 << 12, 2 << 12, 3 << 12, 64, True, False, 9, 7, 7, 4096, 0, [bytes(REQUEST.size)] * 2)
TARGET = Target(
    "qat_state",
    _read,
    refusals=(StateInvalid, CallRefused),
    seeds={"idle": encode(RingState()), "busy": encode(BUSY)},
    mended=_mended,
)
