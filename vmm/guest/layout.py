"""Where the guest keeps its things in guest-physical memory.

::

    0          1 MiB        5 MiB   8 MiB                                                end of low RAM (or of RAM)
    | firmware | VT-d tables | spare | device 0 | device 1 | ... | generations | working set ...
                                       rings, corpus, output slabs of 2 MiB each: an accelerator's 2 + 4 MiB + slabs

The working set is clipped to what is left; all of it lies below the PCI hole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress
from vmm.memory.sections import sections

MIB: Final = 1 << 20
TABLES_BASE: Final = 1 * MIB
TABLES_SIZE: Final = 4 * MIB
DEVICES_BASE: Final = 8 * MIB
RINGS_SIZE: Final = 2 * MIB
CORPUS_SIZE: Final = 4 * MIB
SLAB_SIZE: Final = 2 * MIB
MINIMUM_RAM: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class AreaNeeds:
    """What a driver wants of memory: bytes of rings and corpus, each whole slabs of 2 MiB, and slabs to write into."""

    rings: int
    corpus: int
    slabs: int
    fewest_slabs: int = 2
    """It gets at least so many, however little RAM there is."""


@dataclass(frozen=True, slots=True)
class DeviceArea:
    """One device's memory, without gaps; every base is aligned to 2 MiB, so that a slab can be one large page."""

    rings: int
    corpus: int
    slabs: int
    slab_count: int

    @property
    def size(self) -> int:
        """Bytes from `rings` to the end of the last slab."""
        return self.slabs + self.slab_count * SLAB_SIZE - self.rings

    def slab(self, number: int) -> GuestPhysicalAddress:
        """Return where a slab lies that is counted from the beginning of time: they are used in turn."""
        return GuestPhysicalAddress(self.slabs + number % self.slab_count * SLAB_SIZE)


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole map; `working_set` starts on a page and has `working_pages` pages of CPU writes."""

    devices: tuple[DeviceArea, ...]
    generations: int
    working_set: int
    working_pages: int


def plan(ram_bytes: int, needs: Sequence[AreaNeeds], working_set_bytes: int) -> Layout:
    """Lay a guest out: each device gets the slabs that it wants, within its share of a quarter of the RAM."""
    low = sections(ram_bytes)[0].size
    position, areas = DEVICES_BASE, []
    share = low // 4 // max(1, len(needs))
    for wanted in needs:
        count = max(wanted.fewest_slabs, min(wanted.slabs, share // SLAB_SIZE))
        rings, corpus = position, position + wanted.rings
        slabs = corpus + wanted.corpus
        areas.append(DeviceArea(rings=rings, corpus=corpus, slabs=slabs, slab_count=count))
        position = slabs + count * SLAB_SIZE
    generations = position
    left = low - generations
    pages = max(0, min(working_set_bytes // PAGE_SIZE, (left - PAGE_SIZE) // (PAGE_SIZE + 4)))
    table = -(-pages * 4 // PAGE_SIZE) * PAGE_SIZE
    return Layout(tuple(areas), generations, generations + table, pages)
