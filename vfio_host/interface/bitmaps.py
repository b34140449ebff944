"""Dirty bitmaps as calls carry them: what is not zero, with where it lies (`calls.Bitmap`).

Bit i of a bitmap stands for the page at iova + i * page_size, bit 0 of a byte first (semantics 3.1). A bitmap of
calls may say a bit twice, by a run and by a part; that is an OR. Its parts do not overlap each other.
"""

from typing import Final

from vfio_host.interface.answers import Bitmap

_STRETCH: Final = 64
"""Bits in a row that are worth a run."""
_GAP: Final = 8
"""Bytes of zeros that are cheaper than a new part."""
_RUN_ROOM: Final = 20
_PART_ROOM: Final = 16


def bitmap_bytes(bits: int) -> int:
    """Return the length of a kernel's bitmap of so many bits: whole 64-bit words (semantics 3.1)."""
    return -(-bits // 64) * 8


class BitmapBuilder:
    """Puts a bitmap together: what is added has its lowest bit no lower than what was added before it.

    What lies past its end is left out.
    """

    def __init__(self, bits: int) -> None:
        self._bits: Final = bits
        self._runs: list[tuple[int, int]] = []
        self._parts: list[tuple[int, bytes]] = []
        self._run_start = self._run_end = 0
        self._first = 0
        self._part = bytearray()

    def add_run(self, first: int, count: int) -> None:
        """Set a run."""
        end = min(first + count, self._bits)
        if first >= end:
            return
        if self._run_end and first <= self._run_end:
            self._run_end = max(self._run_end, end)
            return
        self._close_run()
        self._run_start, self._run_end = first, end

    def add_bits(self, first: int, bits: int) -> None:
        """Set the ones of a number whose bit 0 is bit `first`."""
        if first + bits.bit_length() > self._bits:
            bits &= (1 << max(self._bits - first, 0)) - 1
        if not bits:
            return
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        first += skipped
        length = bits.bit_length()
        if length >= _STRETCH and bits & (bits + 1) == 0:
            self.add_run(first, length)
            return
        bits <<= first & 7
        self._add_bytes(first >> 3, bits.to_bytes((bits.bit_length() + 7) >> 3, "little"))

    def built(self) -> Bitmap:
        """Return the bitmap; the builder is of no further use."""
        self._close_run()
        self._close_part()
        return Bitmap(bits=self._bits, runs=tuple(self._runs), parts=tuple(self._parts))

    def _add_bytes(self, first: int, data: bytes) -> None:
        gap = first - self._first - len(self._part)
        if not self._part or gap > _GAP:
            self._close_part()
            self._first, self._part = first, bytearray(data)
            return
        if gap < 0:  # the byte that two neighbours share, or a leaf that was reported past its own end
            overlap = min(-gap, len(data))
            start = first - self._first
            both = int.from_bytes(self._part[start : start + overlap], "little") | int.from_bytes(
                data[:overlap], "little"
            )
            self._part[start : start + overlap] = both.to_bytes(overlap, "little")
            data, gap = data[overlap:], 0
        self._part += bytes(gap) + data

    def _close_run(self) -> None:
        if self._run_end:
            self._runs.append((self._run_start, self._run_end - self._run_start))
        self._run_end = 0

    def _close_part(self) -> None:
        if self._part:
            self._parts.append((self._first, bytes(self._part)))
        self._part = bytearray()


def encoded_room(bitmap: Bitmap) -> int:
    """Return how many bytes of a message a bitmap takes, at most."""
    parts = sum(len(part) for _, part in bitmap.parts)
    return parts + len(bitmap.parts) * _PART_ROOM + len(bitmap.runs) * _RUN_ROOM


def dense(bitmap: Bitmap) -> bytes:
    """Return all of a bitmap in whole 64-bit words."""
    data = bytearray(bitmap_bytes(bitmap.bits))
    for first, part in bitmap.parts:
        data[first : first + len(part)] = part
    for first, count in bitmap.runs:
        _set_run(data, first, count)
    return bytes(data)


def _set_run(data: bytearray, first: int, count: int) -> None:
    last = first + count
    head, tail = -(-first // 8), last // 8
    if head > tail:  # within one byte
        data[tail] |= ((1 << count) - 1) << (first & 7)
        return
    if first & 7:
        data[head - 1] |= (0xFF << (first & 7)) & 0xFF
    data[head:tail] = b"\xff" * (tail - head)
    if last & 7:
        data[tail] |= (1 << (last & 7)) - 1
