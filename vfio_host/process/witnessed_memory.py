"""The kernel's witness of what this process writes to the machine's RAM, for those who verify dirty bits against it."""

import errno
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface.bitmaps import bitmap_bytes
from vfio_host.interface.numbers import PAGE_SIZE
from vfio_host.interface.write_witness import WitnessUnavailable, WriteWitness
from vfio_host.memory_file import MemoryFile


class WitnessedMemory:
    """RAM as it was last registered; devices write it through one mapping, which is the one that is watched."""

    def __init__(self, memory: MemoryFile, length: int) -> None:
        self._memory: Final = memory
        self._length: Final = length
        self._witness: WriteWitness | None = None
        self._unavailable = False

    @property
    def report_bytes(self) -> int:
        """How long a report is."""
        return bitmap_bytes(self._length // PAGE_SIZE)

    def report(self) -> bytes:
        """Return the pages written since the last report, all of them at first, and arm them again.

        Raises:
            CallRefused: EOPNOTSUPP where the kernel offers no asynchronous write protection.
        """
        if self._witness is not None:
            return self._witness.report()
        if self._unavailable:
            raise CallRefused(errno.EOPNOTSUPP, "Kernel bears no witness of writes, as it said before")
        try:
            self._witness = WriteWitness(self._memory.address, self._length)
        except WitnessUnavailable as error:
            self._unavailable = True
            raise CallRefused(errno.EOPNOTSUPP, f"Kernel bears no witness of writes: {error}") from error
        pages = self._length // PAGE_SIZE
        return ((1 << pages) - 1).to_bytes(self.report_bytes, "little")

    def close(self) -> None:
        """Stop watching."""
        if self._witness is not None:
            self._witness.close()
            self._witness = None
