"""What the wire brings to a network card: packet number n of a seed, the same whoever asks.

::

    header 32 bytes   flow u64, sequence u64, seed u64, packet length u32, zero u32
    payload           bytes that follow from flow and sequence
    4 bytes           frame check sequence: CRC-32 of everything before it

Packets have MIN_PACKET to MAX_PACKET bytes. Every eighth brings the next flow, the others belong to one of the last
flows: traffic has a hot part, which moves on, and after FLOWS flows it comes back to the first.
"""

import functools
import hashlib
import struct
import zlib
from typing import Final

MIN_PACKET: Final = 1500
MAX_PACKET: Final = 2048
FLOWS: Final = 8192
HEADER: Final = struct.Struct("<QQQII")
CHECK: Final = struct.Struct("<I")
_NEW_FLOW_EVERY: Final = 8
_RECENT: Final = 32
_MASK: Final = (1 << 64) - 1
_POOL: Final = 1 << 16


def flow_of(seed: int, sequence: int) -> int:
    """Return the identity of the flow that a packet belongs to."""
    newest, turn = divmod(sequence, _NEW_FLOW_EVERY)
    back = _draw(seed, sequence) % min(newest + 1, _RECENT) if turn else 0
    return _draw(seed ^ 0x666C6F77, (newest - back) % FLOWS)


def length_of(seed: int, sequence: int) -> int:
    """Return how long a packet is."""
    return MIN_PACKET + (_draw(seed, sequence) >> 32) % (MAX_PACKET - MIN_PACKET + 1)


def packet(seed: int, sequence: int) -> bytes:
    """Return a whole packet."""
    flow, length = flow_of(seed, sequence), length_of(seed, sequence)
    start = _draw(flow, sequence) % _POOL
    body = HEADER.pack(flow, sequence, seed, length, 0)
    body += _noise()[start : start + length - HEADER.size - CHECK.size]
    return body + CHECK.pack(zlib.crc32(body))


def _draw(seed: int, number: int) -> int:
    """Return 64 bits of which each depends on all of both; distinct for distinct numbers of one seed."""
    value = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


@functools.cache
def _noise() -> bytes:
    return hashlib.shake_256(b"viaduct wire").digest(_POOL + MAX_PACKET)
