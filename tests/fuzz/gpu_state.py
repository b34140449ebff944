"""The graphics processor's migration state (vfio_host.devices.gpu_state), of one with two pages of local memory."""

import mmap
import zlib

from tests.fuzz import qat_state
from tests.fuzz.target import Target, same
from vfio_host.devices.gpu_state import HEADER_BYTES, GpuSink, GpuSource, GpuState
from vfio_host.devices.ring_state import RingState
from vfio_host.errors import CallRefused, StateInvalid

_LOCAL = 2 * 4096


def _written(state: GpuState, local: mmap.mmap) -> bytes:
    source = GpuSource(local, lambda: state)
    source.stop()
    return b"".join(iter(lambda: source.read(1 << 16), b""))


def _read(data: bytes) -> None:
    taken: list[tuple[GpuState, mmap.mmap]] = []
    with mmap.mmap(-1, _LOCAL) as local:
        sink = GpuSink(local, lambda state, memory: taken.append((state, memory)))
        for start in range(0, len(data), 5000):
            sink.write(memoryview(data)[start : start + 5000])
        sink.finish()
        same(_written(*taken[0]), data)


def _mended(data: bytes) -> bytes:
    header = data.ljust(HEADER_BYTES, b"\0")[: HEADER_BYTES - 4]
    local = data[HEADER_BYTES : HEADER_BYTES + _LOCAL].ljust(_LOCAL, b"\0")
    return header + zlib.crc32(header).to_bytes(4, "little") + local + zlib.crc32(local).to_bytes(4, "little")


def _seed(state: GpuState, contents: bytes) -> bytes:
    with mmap.mmap(-1, _LOCAL) as local:
        local[: len(contents)] = contents
        return _written(state, local)


TARGET = Target(
    "gpu_state",
    _read,
    refusals=(StateInvalid, CallRefused),
    seeds={
        "idle": _seed(GpuState(RingState()), b""),
        "busy": _seed(GpuState(qat_state.BUSY, 8, 0x1234), b"picture"),
    },
    mended=_mended,
)
