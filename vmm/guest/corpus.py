"""What an accelerator works on: chunks of real text and code, compressed once, in the guest's own memory.

::

    page 0            count u32, reserved u32 x 3, then an entry for each chunk:
                      offset u32, stored length u32, plain length u32, CRC-32 of the plain bytes u32
    page 1 and on     chunks, each from a page of its own: zlib streams of 64 KiB, then plain ones of 16 KiB

The index is read from guest RAM at each use, never kept beside it: if a migration loses one of its pages, answers
stop to match. Chunks whose stored length equals their plain length are plain; they are what the device compresses.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vmm.guest.layout import CORPUS_SIZE
from vmm.guest.material import Material
from vmm.memory.guest_physical import GuestMemory, page_count
from vmm.memory.quantities import PAGE_SIZE

PLAIN_BYTES: Final = 64 << 10
COMPRESS_BYTES: Final = 16 << 10
_STREAMS: Final = 48
_PLAIN: Final = 8
_HEADER: Final = struct.Struct("<IIII")
_ENTRY: Final = struct.Struct("<IIII")


class CorpusDamaged(Exception):
    """The corpus in guest RAM is not what was stored there: a page of it was lost. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: where it lies, how long it is there, and what it is when decompressed."""

    address: int
    stored_length: int
    plain_length: int
    crc32: int

    @property
    def pages(self) -> int:
        """How many pages hold it."""
        return page_count(self.stored_length)


class Corpus:
    """The corpus at a guest-physical address; all of it lies in guest RAM."""

    streams: Final = _STREAMS
    plain: Final = _PLAIN

    def __init__(self, memory: GuestMemory, base: int) -> None:
        self._memory: Final = memory
        self._base: Final = base

    def build(self, material: Material) -> None:
        """Compress and store the chunks, half of them text and half of them code."""
        sources = (material.text, material.code)
        pieces = [_piece(sources[n % 2], n // 2, _STREAMS // 2, PLAIN_BYTES) for n in range(_STREAMS)]
        plain = [_piece(sources[n % 2], n // 2, _PLAIN // 2, COMPRESS_BYTES) for n in range(_PLAIN)]
        index, offset = [_HEADER.pack(_STREAMS + _PLAIN, 0, 0, 0)], PAGE_SIZE
        for piece, stored in [(piece, _compressed(piece)) for piece in pieces] + [(p, p) for p in plain]:
            self._memory.write(self._base + offset, stored)
            index.append(_ENTRY.pack(offset, len(stored), len(piece), zlib.crc32(piece)))
            offset += page_count(len(stored)) * PAGE_SIZE
        self._memory.write(self._base, b"".join(index))

    def stream(self, number: int) -> Chunk:
        """Return a compressed chunk, 0 to `streams` - 1.

        Raises:
            CorpusDamaged: The index is not whole.
        """
        return self._chunk(number)

    def plain_chunk(self, number: int) -> Chunk:
        """Return a chunk that is not compressed, 0 to `plain` - 1.

        Raises:
            CorpusDamaged: The index is not whole.
        """
        return self._chunk(_STREAMS + number)

    def _chunk(self, number: int) -> Chunk:
        count = _HEADER.unpack(self._memory.read(self._base, _HEADER.size))[0]
        place = self._base + _HEADER.size + number * _ENTRY.size
        offset, stored, plain, crc = _ENTRY.unpack(self._memory.read(place, _ENTRY.size))
        inside = offset >= PAGE_SIZE and offset % PAGE_SIZE == 0 and offset + stored <= CORPUS_SIZE
        if count != _STREAMS + _PLAIN or not inside or stored == 0 or not 0 < plain <= PLAIN_BYTES:
            raise CorpusDamaged(f"Entry {number} of the corpus at 0x{self._base:x} is not what was stored there")
        return Chunk(self._base + offset, stored, plain, crc)


@lru_cache(maxsize=_STREAMS)
def _compressed(piece: bytes) -> bytes:
    """Compress a piece; a guest's accelerators all get the same ones, so that only the first of them waits."""
    return zlib.compress(piece, 6)


def _piece(source: bytes, number: int, count: int, length: int) -> bytes:
    """Return one of `count` pieces, taken evenly from all over the source; one that is too short ends in zeros."""
    start = number * max(1, len(source) - length) // count
    piece = source[start : start + length]
    return piece + bytes(length - len(piece))
