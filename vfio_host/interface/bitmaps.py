"""Dirty bitmaps as calls carry them: what is not zero, with where it lies (`calls.Bitmap`)."""

from typing import Final

from vfio_host.interface.calls import Bitmap

_STRETCH: Final = 64
"""Bytes of zeros that are worth a new part."""


def sparse(data: bytes, bits: int) -> Bitmap:
    """Return a bitmap of little-endian bytes, leaving out long stretches of zeros."""
    parts: list[tuple[int, bytes]] = []
    position, end = 0, len(data)
    gap = bytes(_STRETCH)
    while position < end:
        stop = data.find(gap, position)
        if stop == position:
            position = _next_set(data, position)
            continue
        stop = end if stop < 0 else stop
        parts.append((position, data[position:stop]))
        position = stop
    return Bitmap(bits=bits, parts=tuple(parts))


def dense(bitmap: Bitmap) -> bytes:
    """Return all of a bitmap in whole 64-bit words."""
    data = bytearray(-(-bitmap.bits // 64) * 8)
    for first, part in bitmap.parts:
        data[first : first + len(part)] = part
    for first, count in bitmap.runs:
        number = int.from_bytes(data, "little") | ((1 << count) - 1) << first
        data[:] = number.to_bytes(len(data), "little")
    return bytes(data)


def _next_set(data: bytes, position: int) -> int:
    rest = data[position:]
    return position + len(rest) - len(rest.lstrip(b"\0"))
