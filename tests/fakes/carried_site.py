"""Two hosts between which a machine's own stream is carried over real sockets; the tests play the machine's process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dest_agent.stream_arrival import StreamArrival
from dest_agent.stream_service import StreamService, add_streams
from source_agent.destination_link import DestinationLink
from source_agent.own_stream.relay import Relay, relay
from tests.dest_agent.arrivals import A, arriving
from tests.fakes.far_end import TICKET
from vm_migration.errors import Refused
from vm_migration.handover.states import State
from vm_migration.link.identity import Identity, Role
from vm_migration.link.machine_stream.opening import CARRY_SERVICE
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.server import AgentServer, Service
from vm_migration.link.tls import TlsFiles

LONG = 20.0
Process = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""A machine's process's end of one connection."""


@dataclass
class CarriedSite:
    """`came` are the connections at the destination's process, in the order in which it accepted them.

    `bulk` is where the calls go; it may be put somewhere else, a cable's end say.
    """

    folder: Path
    arrival: StreamArrival
    most: int
    identities: dict[str, TlsFiles]
    bulk: str = ""
    came: asyncio.Queue[Process] = field(default_factory=asyncio.Queue)
    open: list[Process] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out.sock"

    def stream_target(self, attempt: str) -> StreamArrival:
        if attempt != A:
            raise Refused("not-arriving", f"Attempt {attempt} is not arriving here", "Ask for its state")
        return self.arrival

    def link(self, name: str = "host-a", attempt: str = A) -> DestinationLink:
        """Return a link with somebody's certificate."""
        tls = self.identities.get(name)
        return DestinationLink(host="host-b", control=self.bulk, bulk=self.bulk, tls=tls, attempt=attempt)

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[Relay]:
        """Carry what is said at `out`."""
        async with self.link() as link, relay(self.out, partial(link.connection, TICKET), self.most) as carrying:
            yield carrying

    async def connect(self) -> Process:
        """Open a connection as the source's process does."""
        self.open.append(await asyncio.open_unix_connection(self.out))
        return self.open[-1]

    async def accept(self) -> Process:
        """Return the next connection as the destination's process has it."""
        return await self.came.get()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append((reader, writer))
        self.came.put_nowait((reader, writer))


@asynccontextmanager
async def carried_site(folder: Path, most: int = 1, *, secured: bool = True) -> AsyncIterator[CarriedSite]:
    """Have a destination at which a machine arrives by its own stream, whose process accepts what comes."""
    identities: dict[str, TlsFiles] = {}
    if secured:
        create_authority(folder / "pki", "home")
        for name, role in (("host-a", Role.HOST), ("host-b", Role.HOST), ("host-c", Role.HOST), ("op", Role.OPERATOR)):
            identities[name] = issue(folder / "pki", Identity("home", role, name))
    with arriving(folder, State.PREPARED) as held:
        arrival = StreamArrival(held.custody, "host-a", TICKET, path=folder / "in.sock", most=most)
        site = CarriedSite(folder, arrival, most, identities)
        process = await asyncio.start_unix_server(site.accepted, folder / "in.sock", backlog=most)
        services = [Service(CARRY_SERVICE, partial(add_streams, StreamService(site)))]
        try:
            async with AgentServer("127.0.0.1:0", identities.get("host-b"), services, grace=0.0) as server:
                site.bulk = server.address
                try:
                    yield site
                finally:
                    arrival.let_go()
        finally:
            process.close()
            for _, writer in site.open:
                writer.transport.abort()
