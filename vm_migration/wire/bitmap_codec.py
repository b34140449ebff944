"""The compact, canonical form of a bitmap of pages.

The bitmap is cut into chunks of 65536 pages (the last may be shorter), and each chunk is written as the first of
these that says it, RUNS only where it is shorter than WORDS::

    0 EMPTY                               no page
    1 FULL                                every page of the chunk
    2 RUNS   n: u16, n x (first: u16, count - 1: u16)   ascending, maximal
    3 WORDS  the chunk's 64-bit words

All integers are little-endian. One bitmap has one encoding; `decode_bitmap` refuses every other. A bitmap of 1 TiB of
RAM with no page in it takes 4 KiB, and none takes more than one byte a chunk above its words.
"""

import struct
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from vm_migration.wire.errors import BitmapError
from vmm.memory.dirty_bitmap import DirtyBitmap, Words

_CHUNK_WORDS: Final = 1024
_COUNT: Final = struct.Struct("<H")
_RUN_BYTES: Final = 4
_ALL: Final = ~np.uint64(0)
_ONE: Final = np.uint64(1)
_TOP: Final = np.uint64(63)

_Ends = npt.NDArray[np.uint16]


class _Form(IntEnum):
    EMPTY = 0
    FULL = 1
    RUNS = 2
    WORDS = 3


def encode_bitmap(bitmap: DirtyBitmap) -> bytes:
    """Return the canonical form of a bitmap."""
    return b"".join(
        _encoded_chunk(bitmap.words[low : low + _CHUNK_WORDS], _full_chunk(bitmap.pages, low))
        for low in range(0, len(bitmap.words), _CHUNK_WORDS)
    )


def decode_bitmap(pages: int, data: bytes) -> DirtyBitmap:
    """Return the bitmap of so many pages that an encoding means.

    No more is allocated than a bitmap of `pages` takes, whatever the data say.

    Raises:
        BitmapError: The data are cut off, too long, out of bounds, or not the canonical form.
    """
    words = np.zeros((pages + 63) // 64, dtype="<u8")
    position = 0
    for low in range(0, len(words), _CHUNK_WORDS):
        position = _decode_chunk(data, position, words[low : low + _CHUNK_WORDS], _full_chunk(pages, low))
    if position != len(data):
        raise BitmapError(f"Bitmap of {pages} pages ends at byte {position}, not {len(data)}")
    try:
        bitmap = DirtyBitmap.from_bytes(pages, words.tobytes())
    except ValueError as error:
        raise BitmapError(str(error)) from error
    if encode_bitmap(bitmap) != data:
        raise BitmapError(f"Bitmap of {pages} pages is not in canonical form")
    return bitmap


def _full_chunk(pages: int, low: int) -> Words:
    """Return the words of the chunk from word `low` with every page set."""
    count = min(_CHUNK_WORDS, (pages + 63) // 64 - low)
    full = np.full(count, _ALL, dtype=np.uint64)
    beyond = (low + count) * 64 - pages
    if beyond > 0:
        full[-1] = _ALL >> np.uint64(beyond)
    return full


def _encoded_chunk(words: Words, full: Words) -> bytes:
    if not words.any():
        return bytes((_Form.EMPTY,))
    if (words == full).all():
        return bytes((_Form.FULL,))
    starts, ends = _run_edges(words)
    count = int(np.bitwise_count(starts).sum())
    if _COUNT.size + _RUN_BYTES * count >= words.nbytes:
        return bytes((_Form.WORDS,)) + words.astype("<u8", copy=False).tobytes()
    table = np.empty((count, 2), dtype="<u2")
    firsts = _positions(starts)
    table[:, 0] = firsts
    table[:, 1] = _positions(ends) - firsts
    return bytes((_Form.RUNS,)) + _COUNT.pack(count) + table.tobytes()


def _run_edges(words: Words) -> tuple[Words, Words]:
    """Return the words that hold only each run's first page, and those that hold only its last."""
    previous = np.zeros_like(words)
    previous[1:] = words[:-1] >> _TOP
    following = np.zeros_like(words)
    following[:-1] = words[1:] << _TOP
    return words & ~((words << _ONE) | previous), words & ~((words >> _ONE) | following)


def _positions(words: Words) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_))


def _decode_chunk(data: bytes, position: int, words: Words, full: Words) -> int:
    """Fill in a chunk's words, and return where the next chunk begins."""
    form = data[position] if position < len(data) else None
    position += 1
    match form:
        case _Form.EMPTY:
            return position
        case _Form.FULL:
            words[:] = full
            return position
        case _Form.WORDS:
            end = position + words.nbytes
            if end > len(data):
                raise BitmapError(f"Bitmap is cut off in the words at byte {position}")
            words[:] = np.frombuffer(data, dtype="<u8", count=len(words), offset=position)
            return end
        case _Form.RUNS:
            return _decode_runs(data, position, words)
        case None:
            raise BitmapError(f"Bitmap is cut off at byte {position - 1}")
        case _:
            raise BitmapError(f"Bitmap has a chunk of form {form} at byte {position - 1}")


def _decode_runs(data: bytes, position: int, words: Words) -> int:
    if position + _COUNT.size > len(data):
        raise BitmapError(f"Bitmap is cut off in the runs at byte {position}")
    count: int = _COUNT.unpack_from(data, position)[0]
    start = position + _COUNT.size
    end = start + count * _RUN_BYTES
    if end > len(data):
        raise BitmapError(f"Bitmap is cut off in the runs at byte {position}")
    table = np.frombuffer(data, dtype="<u2", count=2 * count, offset=start).reshape(-1, 2).astype(np.int64)
    after = table[:, 0] + table[:, 1] + 1
    if (table[1:, 0] <= after[:-1]).any() or (count and int(after[-1]) > len(words) * 64):
        raise BitmapError(f"Bitmap has runs that overlap or leave their chunk at byte {position}")
    steps = np.zeros(len(words) * 64 + 1, dtype=np.int8)
    steps[table[:, 0]] = 1
    steps[after] = -1
    flags = np.cumsum(steps[:-1], dtype=np.int8).view(np.uint8)
    words[:] = np.packbits(flags, bitorder="little").view("<u8")
    return end
