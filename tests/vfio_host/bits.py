"""Reading bitmaps of answers."""

import numpy as np

from vfio_host.interface.answers import Bitmap
from vfio_host.interface.bitmaps import dense


def ones(bitmap: Bitmap | None) -> list[int]:
    """Return the bits that are set."""
    assert bitmap is not None
    flags = np.unpackbits(np.frombuffer(dense(bitmap), dtype=np.uint8), bitorder="little")
    return [int(page) for page in np.flatnonzero(flags)]


def count_ones(bitmap: Bitmap | None) -> int:
    """Return how many bits are set."""
    assert bitmap is not None
    return int.from_bytes(dense(bitmap), "little").bit_count()
