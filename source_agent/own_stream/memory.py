"""The memory of a machine that sends itself, as its source hashes it while it stands still."""

import asyncio
from dataclasses import dataclass
from typing import Final

from vm_migration.api.v1 import destination_pb2
from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.port import MachinePort
from vm_migration.telemetry import logs
from vm_migration.transfer.span_digests import span_digests, span_pages
from vmm.memory.ram_block import RamBlock

_log: Final = logs.get(__name__)


@dataclass(slots=True)
class HashedMemory:
    """RAM as this process maps it; None where it is not compared, for the reason that is told."""

    ram: RamBlock | None
    why_not: str = ""

    @property
    def size(self) -> int:
        """How many bytes are hashed."""
        return 0 if self.ram is None else self.ram.size

    @property
    def verified_by(self) -> str:
        """What vouches for the destination's copy: full or none."""
        return "none" if self.ram is None else "full"

    async def digests(self) -> destination_pb2.SpanDigests | None:
        """Hash it as it stands, on another thread; None where it is not compared."""
        if self.ram is None:
            return None
        ram = self.ram
        digests = await asyncio.to_thread(span_digests, ram.words, list(ram.extents()))
        return destination_pb2.SpanDigests(
            pages=ram.pages, span_pages=span_pages(ram.pages), digests=digests.astype("<u8").tobytes()
        )

    def close(self) -> None:
        """Let go of it."""
        if self.ram is not None:
            self.ram.close()
            self.ram = None


async def hashed_memory(machine: MachinePort, *, verify: bool) -> HashedMemory:
    """Return the memory of a machine; one that does not hand it out cannot be compared, and says why."""
    if not verify:
        return HashedMemory(None)
    try:
        return HashedMemory(await machine.ram())
    except MachineRefused as error:
        _log.warning("memory is not compared", reason=str(error))
        return HashedMemory(None, str(error))
