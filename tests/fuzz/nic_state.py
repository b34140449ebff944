"""The network card's migration state (vfio_host.devices.nic_state), a stream of records, written piece by piece."""

import struct
import zlib

from tests.fuzz.target import Broken, Target
from vfio_host.devices.flow_table import FlowTable
from vfio_host.devices.nic_state import NicSink, NicSource, NicState
from vfio_host.errors import CallRefused, StateInvalid

_HEAD = struct.Struct("<4sII")


def _written(state: NicState, flows: FlowTable) -> bytes:
    flows.changed.clear()
    source = NicSource(flows, lambda: state)
    source.stop()
    return b"".join(iter(lambda: source.read(1 << 16), b""))


def _taken(data: bytes) -> tuple[NicState, FlowTable]:
    taken: list[tuple[NicState, FlowTable]] = []
    sink = NicSink(lambda state, flows: taken.append((state, flows)))
    for start in range(0, len(data), 3000):
        sink.write(memoryview(data)[start : start + 3000])
    sink.finish()
    return taken[0]


def _read(data: bytes) -> None:
    state, flows = _taken(data)
    again, flows_again = _taken(_written(state, flows))  # blocks may come in any order, and as often as they changed
    if (again, flows_again.checksum(), len(flows_again)) != (state, flows.checksum(), len(flows)):
        raise Broken("A card's state is another when it moves once more")


def _mended(data: bytes) -> bytes:
    """Put the checksum of each record right, as far as their lengths lead."""
    result, place = bytearray(data), 0
    while place + _HEAD.size + 4 <= len(result):
        head = bytes(result[place : place + _HEAD.size])
        end = place + _HEAD.size + 4 + _HEAD.unpack(head)[2]
        checksum = zlib.crc32(bytes(result[place + _HEAD.size + 4 : end]), zlib.crc32(head))
        result[place + _HEAD.size : place + _HEAD.size + 4] = checksum.to_bytes(4, "little")
        place = end
    return bytes(result)


def _seeds() -> dict[str, bytes]:
    flows = FlowTable()
    for number in range(70):
        flows.count(number * 7, number, 1500)
    state = NicState(1 << 12, 2 << 12, 3 << 12, 256, 1_250_000_000, 5, 900, 901, 1 << 20, 1, 0, -77, True, False)
    return {"fresh": _written(NicState(), FlowTable()), "learned": _written(state, flows)}


TARGET = Target("nic_state", _read, refusals=(StateInvalid, CallRefused), seeds=_seeds(), mended=_mended, factor=64)
