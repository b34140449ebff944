"""A machine's dirty map: taken where a round closes, and looked at within it for pages that need not be sent now.

What a look takes is not lost: it is unsent from then on, and belongs to what was dirtied while the round ran. A look is
therefore never broken off; the round waits for the one that it finds under way. Looks take a small share of the time,
and become rare where they find nothing.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from vm_migration.errors import AttemptFailed
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Harvest, MachinePort
from vm_migration.transfer.hot_pages import FIRST_LOOK_MS, HotPages, WaitingPages, rest_ms
from vm_migration.transfer.unsent import UnsentSet
from vmm.memory.dirty_bitmap import DirtyBitmap


class DirtyLog:
    """What the guest and its devices have dirtied, round by round."""

    def __init__(self, machine: MachinePort, unsent: UnsentSet, pages: int) -> None:
        self._machine: Final = machine
        self._unsent: Final = unsent
        self._hot: Final = HotPages(pages)
        self._cpu = DirtyBitmap(pages)
        self._dma = DirtyBitmap(pages)

    async def take(self) -> DirtyBitmap:
        """Make what was written since the last time unsent, and return it.

        Raises:
            AttemptFailed: Pages may be missing from it.
        """
        harvest: Harvest = await self._machine.harvest()
        if harvest.failure is not None:
            raise AttemptFailed("dirty-query-failed", harvest.failure, "The machine goes on at its source; try again")
        written = harvest.cpu | harvest.dma
        self._unsent.harvest(written)
        self._cpu.merge(harvest.cpu)
        self._dma.merge(harvest.dma)
        return written

    def closed(self) -> Harvest:
        """Return all that was dirtied while the round ran that has just closed."""
        found = Harvest(self._cpu, self._dma, None)
        self._hot.closed(found.cpu | found.dma)
        self._cpu, self._dma = DirtyBitmap(found.cpu.pages), DirtyBitmap(found.cpu.pages)
        return found

    def opened(self, announced: DirtyBitmap) -> WaitingPages:
        """Return what waits in a round of the announced pages, as far as that is known when it opens."""
        return WaitingPages(announced, self._hot.hot)

    async def look(self, waiting: WaitingPages) -> int:
        """Tell a round what is dirty again by now; return of how many pages that was not known."""
        return waiting.notice(await self.take())

    async def watch(self, waiting: WaitingPages, over: asyncio.Event, allowed: Callable[[], bool]) -> None:
        """Look now and then until the round is over."""
        rest = FIRST_LOOK_MS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest / 1000):
                    await over.wait()
            if over.is_set():
                return
            if allowed():
                began = loop_ns()
                noticed = await self.look(waiting)
                rest = rest_ms(rest, took_ms=(loop_ns() - began) / 1e6, noticed=noticed)
