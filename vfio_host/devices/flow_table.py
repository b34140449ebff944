"""What a network card has learned: for each flow, how much came of it. The part of its state that grows.

::

    entry, 64 bytes   flow u64 | packets u64 | bytes u64 | first sequence u64 | last sequence u64 | zeros
    block, 4 KiB      64 entries, in the order in which the flows were learned; zeros after the last

Blocks are what moves: `changed` holds the numbers of those that changed since it was last emptied, by whoever reads
the state.
"""

import struct
import zlib
from typing import Final

from vfio_host.errors import StateInvalid
from vfio_host.interface.nic import MAX_FLOWS

BLOCK_BYTES: Final = 4096
_ENTRY: Final = struct.Struct("<QQQQQ24x")
_PER_BLOCK: Final = BLOCK_BYTES // _ENTRY.size
MAX_BLOCKS: Final = MAX_FLOWS // _PER_BLOCK
_MASK: Final = (1 << 64) - 1


class FlowTable:
    """The table; it never holds more than MAX_FLOWS flows, and those that come later are not counted."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._place: dict[int, int] = {}
        self.changed: Final[set[int]] = set()

    def __len__(self) -> int:
        return len(self._place)

    @property
    def blocks(self) -> int:
        """How many blocks hold the flows."""
        return len(self._data) // BLOCK_BYTES

    def count(self, flow: int, sequence: int, length: int) -> None:
        """Count a packet."""
        place = self._place.get(flow)
        if place is None:
            place = len(self._place)
            if place == MAX_FLOWS:
                return
            self._place[flow] = place
            if place % _PER_BLOCK == 0:
                self._data += bytes(BLOCK_BYTES)
            entry = (flow, 1, length, sequence, sequence)
        else:
            _, packets, size, first, _ = _ENTRY.unpack_from(self._data, place * _ENTRY.size)
            entry = (flow, (packets + 1) & _MASK, (size + length) & _MASK, first, sequence)
        _ENTRY.pack_into(self._data, place * _ENTRY.size, *entry)
        self.changed.add(place // _PER_BLOCK)

    def block(self, number: int) -> bytes:
        """Return a block."""
        return bytes(self._data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])

    def checksum(self) -> int:
        """Return the CRC-32 of all blocks."""
        return zlib.crc32(self._data)

    @classmethod
    def of(cls, blocks: dict[int, bytes], flows: int, checksum: int) -> "FlowTable":
        """Return the table that blocks make.

        Raises:
            StateInvalid: They are not those of so many flows with such a checksum, or one flow is there twice.
        """
        made = cls()
        expected = -(-flows // _PER_BLOCK)
        if flows > MAX_FLOWS or set(blocks) != set(range(expected)):
            raise StateInvalid(f"State has {len(blocks)} blocks of flows, not those of {flows} flows")
        made._data += b"".join(blocks[number] for number in range(expected))
        if made.checksum() != checksum:
            raise StateInvalid("Flow table is damaged: its checksum is wrong")
        for place in range(flows):
            made._place[_ENTRY.unpack_from(made._data, place * _ENTRY.size)[0]] = place
        if len(made._place) != flows or any(made._data[flows * _ENTRY.size :]):
            raise StateInvalid("Flow table holds a flow twice, or more than it says")
        return made
