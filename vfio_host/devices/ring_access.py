"""How a device reaches its rings and its index page; vfio_host/interface/rings.py says what lies there.

Nothing here knows what the entries mean. Every access goes through the device's `DmaPort`, and whatever a guest wrote
is checked before it counts anything.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from vfio_host.devices.dma_port import DmaPort
from vfio_host.errors import CallRefused
from vfio_host.interface.numbers import U64_MAX
from vfio_host.interface.rings import INDEXES, TAKEN

R = TypeVar("R", bound=IntEnum)


class RingNonsense(Exception):
    """An index page that no driver writes; the device that read it disables itself."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring in guest memory: `entries` of `entry_bytes` from the IOVA `base` on."""

    base: int
    entries: int
    entry_bytes: int

    def read(self, dma: DmaPort, first: int, count: int) -> Iterator[list[bytes]]:
        """Read entries from an index on, run by run: one that ends at the ring's end, the next begins the ring again.

        Raises:
            DmaFault: The next run cannot be read; those before it were given out.
        """
        for iova, run in self._runs(first, count):
            data = dma.read(iova, run * self.entry_bytes)
            yield [data[i : i + self.entry_bytes] for i in range(0, len(data), self.entry_bytes)]

    def write(self, dma: DmaPort, first: int, data: bytes) -> None:
        """Write whole entries from an index on.

        Raises:
            DmaFault: Not all can be written; the runs before the one that cannot be were.
        """
        done = 0
        for iova, run in self._runs(first, len(data) // self.entry_bytes):
            end = done + run * self.entry_bytes
            dma.write(iova, data[done:end])
            done = end

    def _runs(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        while count > 0:
            place = first % self.entries
            run = min(count, self.entries - place)
            yield (self.base + place * self.entry_bytes) & U64_MAX, run
            first, count = first + run, count - run


def read_indexes(dma: DmaPort, base: int, entries: int, *, taken: int, answered: int) -> tuple[int, int]:
    """Return how much work waits, and how many answers the driver has not looked at: each at most the ring's entries.

    Raises:
        DmaFault: The index page cannot be read.
        RingNonsense: It tells of more than a ring holds, or of less than nothing.
    """
    given, _, _, checked = INDEXES.unpack(dma.read(base, INDEXES.size))
    waiting, unread = given - taken, answered - checked
    if not 0 <= waiting <= entries or not 0 <= unread <= entries:
        raise RingNonsense
    return waiting, unread


def write_indexes(dma: DmaPort, base: int, *, taken: int, answered: int) -> None:
    """Write the device's own two indexes.

    Raises:
        DmaFault: They cannot be written; neither was.
    """
    dma.write((base + TAKEN) & U64_MAX, taken.to_bytes(8, "little") + answered.to_bytes(8, "little"))


def register_at(registers: type[R], offset: int) -> R:
    """Return the register of a data sheet at an offset.

    Raises:
        CallRefused: EINVAL where it has none.
    """
    try:
        return registers(offset)
    except ValueError:
        raise CallRefused(errno.EINVAL, f"Region 0 has no register at 0x{offset:x}") from None
