"""A link between two processes of this machine that can be pulled, or made slow, without anybody being told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 4096


@dataclass
class Cable:
    """Carries bytes both ways between `address` and where it leads; each way `bytes_per_second` of them, 0: all."""

    address: str = ""
    bytes_per_second: int = 0
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: what was sent arrives nowhere, and no connection is closed."""

    ways: set[asyncio.Task[None]] = field(default_factory=set)

    def pull(self) -> None:
        self.whole.clear()

    def cut(self) -> None:
        """Close every connection, at both of its ends, in whatever it is."""
        for way in self.ways:
            way.cancel()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self.whole.wait()
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)  # the link's own slowness
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cable_to(address: str) -> AsyncIterator[Cable]:
    """Lay a cable to an address on loopback."""
    host, port = address.rsplit(":", 1)
    cable = Cable()
    cable.whole.set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        ways = [
            asyncio.create_task(cable.carry(reader, far_writer)),
            asyncio.create_task(cable.carry(far_reader, writer)),
        ]
        cable.ways.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, far_writer):
                each.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_CHUNK)
    cable.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cable
    finally:
        cable.cut()
        server.close()
        await server.wait_closed()
