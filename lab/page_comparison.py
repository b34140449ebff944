"""The oracle's eye: which pages of two RAMs differ in truth, whatever any bitmap or digest says."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock

_PIECE: Final = 4096
"""Pages compared at a time: 16 MiB of each side."""


def differing_pages(one: RamBlock, other: RamBlock) -> frozenset[int]:
    """Return the pages whose bytes differ; what neither side ever touched is not looked at.

    Raises:
        ValueError: The two are not of one size.
    """
    if one.pages != other.pages:
        raise ValueError(f"RAM of {one.pages} pages cannot be compared with {other.pages}")
    touched = DirtyBitmap(one.pages)
    for block in (one, other):
        for first, count in block.extents():
            touched.set_run(first, count)
    found: list[int] = []
    for first, count in _pieces(touched):
        differs = (one.words[first : first + count] != other.words[first : first + count]).any(axis=1)
        found.extend((np.flatnonzero(differs) + first).tolist())
    return frozenset(found)


def _pieces(pages: DirtyBitmap) -> Iterator[tuple[int, int]]:
    for first, count in pages.runs():
        for start in range(first, first + count, _PIECE):
            yield start, min(_PIECE, first + count - start)
