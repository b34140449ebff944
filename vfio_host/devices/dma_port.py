"""How a device reaches memory: through the IO page table that it is attached to, and under its log's eyes."""

from typing import Final, Protocol

from vfio_host.io_page_table import IoPageTable


class WriteLog(Protocol):
    """Whoever notes which IOVAs a device wrote."""

    def mark(self, iova: int, length: int) -> None:
        """Note a write that has happened."""


class DmaPort:
    """One device's way to memory; detached, every access is a fault."""

    def __init__(self, log: WriteLog | None = None) -> None:
        self._log: Final = log
        self._table = IoPageTable()

    def attach(self, table: IoPageTable | None) -> None:
        """Use another address space; None is an empty one."""
        self._table = table if table is not None else IoPageTable()

    @property
    def generation(self) -> int:
        """A number that changes whenever the mappings do."""
        return self._table.generation

    def read(self, iova: int, length: int) -> bytes:
        """Read memory.

        Raises:
            DmaFault: Not all of it is readable.
        """
        return self._table.read(iova, length)

    def write(self, iova: int, data: bytes | memoryview) -> None:
        """Write memory and note it in the log.

        Raises:
            DmaFault: Not all of it is writable; nothing was written and nothing is noted.
        """
        self._table.write(iova, data)
        if self._log is not None and len(data):
            self._log.mark(iova, len(data))
