"""Which job of the graphics processor comes when, and what must come out of it.

Job n, counted from when the driver opened the device, takes one tile of 64 KiB of local memory through
X = X x MULTIPLIER + input (interface/gpu.py). A tile's input is always the same, and its first visit multiplies by 0,
so that after visit v the tile is

    X = input x (1 + M + M^2 + ... + M^(v-1)), modulo 2^64 in each word

whatever local memory held before. The answer to any job thus depends on every visit before it, and is known from the
job's number alone. Windows of tiles are passed PASSES times before the next window's turn comes; after the last window
the first one's comes again.
"""

from dataclasses import dataclass
from typing import Final

TILE_BYTES: Final = 64 << 10
JOBS_PER_SLAB: Final = 32
INPUTS: Final = 16
"""Chunks of TILE_BYTES that jobs read."""
INPUTS_PER_SLAB: Final = 4
_MULTIPLIER: Final = 0x9E3779B1
_WINDOW: Final = 64
_PASSES: Final = 4
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One job: its tile, how often that was visited with this visit, and which chunk goes in."""

    number: int
    tile: int
    visit: int

    @property
    def slab(self) -> int:
        """Which slab of outputs."""
        return self.number // JOBS_PER_SLAB

    @property
    def output_offset(self) -> int:
        """Where in its slab the output goes."""
        return self.number % JOBS_PER_SLAB * TILE_BYTES

    @property
    def local_offset(self) -> int:
        """Where in local memory its tile lies."""
        return self.tile * TILE_BYTES

    @property
    def chunk(self) -> int:
        """Which chunk goes in: the jobs of one slab need INPUTS_PER_SLAB neighbours."""
        return first_chunk(self.tile) + self.tile % INPUTS_PER_SLAB

    @property
    def multiplier(self) -> int:
        """What the tile is multiplied by."""
        return _MULTIPLIER if self.visit > 1 else 0

    @property
    def factor(self) -> int:
        """What the input, multiplied by it, is the outcome of."""
        return geometric(_MULTIPLIER, self.visit)


def job(number: int, tiles: int) -> Job:
    """Return a job on a local memory of so many tiles, at least one."""
    window = next((size for size in (_WINDOW, JOBS_PER_SLAB) if tiles >= size), tiles)
    windows = tiles // window
    turn, inside = divmod(number, window * _PASSES)
    this_pass, place = divmod(inside, window)
    return Job(number, turn % windows * window + place, turn // windows * _PASSES + this_pass + 1)


def first_chunk(tile: int) -> int:
    """Return the first of the chunks that a tile and its neighbours in one slab need."""
    return tile // JOBS_PER_SLAB * INPUTS_PER_SLAB % INPUTS


def geometric(ratio: int, terms: int) -> int:
    """Return 1 + ratio + ... + ratio^(terms - 1) modulo 2^64, in a number of steps like the bits of `terms`."""
    total, power = 0, 1
    for bit in f"{terms:b}":
        total, power = total * (power + 1) & _MASK, power * power & _MASK
        if bit == "1":
            total, power = (total * ratio + 1) & _MASK, power * ratio & _MASK
    return total
