"""A monitor of a QEMU that is somebody's own: it sees and says what it likes, past whoever commands that QEMU."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.vm_migration.machine.qemu.hosts import SECONDS
from vm_migration.machine.qemu.answers import Migration, Status
from vm_migration.machine.qemu.session import QmpSession

DOOR: Final = "own.qmp"


def with_door(path: str = DOOR) -> tuple[str, ...]:
    """Return the arguments that give a QEMU one; without a path it is in its machine's folder, on whichever host."""
    return ("-chardev", f"socket,id=own,path={path},server=on,wait=off", "-mon", "chardev=own,mode=control")


class OwnMonitor:
    """One that is open; events are kept until somebody asks for them."""

    def __init__(self, path: Path) -> None:
        self._heard: Final[asyncio.Queue[str]] = asyncio.Queue()
        self.session: Final = QmpSession(path, self._heard.put_nowait)

    async def next_event(self) -> str:
        async with asyncio.timeout(SECONDS):
            return await self._heard.get()

    async def hears(self, event: str) -> None:
        """Wait for an event; those before it are gone then."""
        while await self.next_event() != event:
            continue

    async def migration(self) -> str:
        """Return what its stream has come to."""
        return (await self.session.ask("query-migrate", Migration)).status

    async def runs(self) -> bool:
        return (await self.session.ask("query-status", Status)).running


@asynccontextmanager
async def own_monitor(folder: Path) -> AsyncIterator[OwnMonitor]:
    """Have the one open of the QEMU that works in a folder."""
    monitor = OwnMonitor(folder / DOOR)
    await monitor.session.open()
    try:
        yield monitor
    finally:
        await monitor.session.close()


async def cont(folder: Path) -> None:
    """Tell the QEMU that works in a folder to run its guest, past whoever commands it."""
    async with own_monitor(folder) as monitor:
        await monitor.session.tell("cont")
