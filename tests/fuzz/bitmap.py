"""The compact form of a bitmap (vm_migration.wire.bitmap_codec): four bytes say of how many pages, the rest is it."""

import numpy as np

from tests.fuzz.target import Target, same
from vm_migration.wire.bitmap_codec import decode_bitmap, encode_bitmap
from vm_migration.wire.errors import BitmapError
from vmm.memory.dirty_bitmap import DirtyBitmap

_PAGES = 1 << 18
_CHUNK = 65536


def _pages(data: bytes) -> int:
    return int.from_bytes(data[:4], "little") % _PAGES


def _read(data: bytes) -> None:
    same(encode_bitmap(decode_bitmap(_pages(data), data[4:])), data[4:])


def _seed(bitmap: DirtyBitmap) -> bytes:
    return bitmap.pages.to_bytes(4, "little") + encode_bitmap(bitmap)


def _seeds() -> dict[str, bytes]:
    runs = DirtyBitmap(2 * _CHUNK + 7)
    runs.set_run(5, 3)
    runs.set_run(_CHUNK - 1, 2)
    full = DirtyBitmap(_CHUNK)
    full.set_run(0, _CHUNK)
    words = DirtyBitmap.from_pages(200, np.arange(0, 200, 2))
    return {"runs": _seed(runs), "full": _seed(full), "words": _seed(words), "none": _seed(DirtyBitmap(0))}


TARGET = Target(
    "bitmap",
    _read,
    refusals=(BitmapError,),
    seeds=_seeds(),
    # A bit for each page, kept, copied and written again; and what finds the runs of one chunk, a few bytes a page.
    declared=lambda data: _pages(data) + 32 * min(_pages(data), _CHUNK),
)
