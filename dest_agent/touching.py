"""How fast this host makes memory ready just now, tried for a moment.

What a first touch costs is the host's own business: on hosts that are themselves virtual machines, or whose memory is
in pieces, it is ten times as much in one moment as in the next, and only touching some tells. The block is of the kind
that an arriving machine has, and nobody keeps it.

Memory that was touched is cheaper to touch again, and what was given back last is given out first: a machine that comes
next gets what the trial has made warm. So the trial touches its memory, gives it back, and touches as much again: the
machine's memory is expected to cost the second price as far as the trial went, and the first beyond. It gives back when
its time is over and not before: a kernel that tells its own host which pages are free (free page reporting, every two
seconds) has them cold again soon.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from vm_migration.loop_clock import loop_ns
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

_PIECE: Final = 64 << 20
"""Bytes that are touched between two looks at the time."""
_ENOUGH: Final = 4
"""Pieces, or the whole of the machine where it is smaller, without which nothing is said."""
_FIRST: Final = 0.8
"""The share of the time in which memory is touched for the first time, and after which it is given back."""
_NS_PER_MS: Final = 1_000_000


class TouchTrial:
    """Touches memory of its own, for one who asks at a time.

    Args:
        clock_ns: The time, in nanoseconds, on a thread that has no loop.
        sleep: Waits so many seconds.
    """

    def __init__(self, clock_ns: Callable[[], int], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock_ns: Final = clock_ns
        self._sleep: Final = sleep
        self._trial: asyncio.Task[float | None] | None = None

    async def ms_per_byte(self, ram_bytes: int, left_bytes: int, for_ms: int) -> float | None:
        """Return what touching a machine's memory takes for each byte.

        None where somebody else's trial is under way, also one that nobody waits for any more, where memory is short,
        or too little could be touched.

        Args:
            ram_bytes: The machine's memory, and the most that is touched.
            left_bytes: What the host can spare; a quarter of it is touched at most.
            for_ms: After so many milliseconds no further piece is begun.
        """
        size = min(ram_bytes, left_bytes // 4) // PAGE_SIZE * PAGE_SIZE
        if size <= 0 or size < min(ram_bytes, _ENOUGH * _PIECE) or not (self._trial is None or self._trial.done()):
            return None
        self._trial = asyncio.create_task(self._tried(ram_bytes, size, for_ms), name="touching memory")
        return await asyncio.shield(self._trial)  # its thread goes on, whoever stops waiting

    async def _tried(self, ram_bytes: int, size: int, for_ms: int) -> float | None:
        began_ns, first_ns = loop_ns(), int(for_ms * _NS_PER_MS * _FIRST)
        try:
            async with _block(size) as block:
                touched, first_ms = await asyncio.to_thread(self._touched, block, size, first_ns)
                if touched < min(ram_bytes, _ENOUGH * _PIECE):
                    return None
                await self._sleep(max(0, first_ns - (loop_ns() - began_ns)) / 1e9)
            async with _block(touched) as block:
                rest_ns = for_ms * _NS_PER_MS - first_ns
                again, second_ms = await asyncio.to_thread(self._touched, block, touched, rest_ns)
        except (OSError, MemoryError):  # the host has none to spare after all
            return None
        return (second_ms / again * touched + first_ms / touched * (ram_bytes - touched)) / ram_bytes

    def _touched(self, block: RamBlock, size: int, for_ns: int) -> tuple[int, float]:
        """Touch one piece, and more as long as there is time; return how many bytes, in how many milliseconds."""
        began_ns, touched = self._clock_ns(), 0
        while touched < size and (touched == 0 or self._clock_ns() - began_ns < for_ns):
            piece = min(_PIECE, size - touched)
            block.populate(touched // PAGE_SIZE, piece // PAGE_SIZE)
            touched += piece
        return touched, (self._clock_ns() - began_ns) / _NS_PER_MS


@asynccontextmanager
async def _block(size: int) -> AsyncIterator[RamBlock]:
    block = RamBlock.create("viaduct-trial", size, whole=True)
    try:
        yield block
    finally:
        await asyncio.to_thread(_give_back, block)  # gigabytes take more than a moment


def _give_back(block: RamBlock) -> None:
    """Free the memory now: what is closed only goes with the last view of it, whoever has that."""
    os.ftruncate(block.descriptor, 0)
    block.close()
