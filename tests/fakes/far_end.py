"""A host that one machine is arriving at: its two listeners, as a destination agent serves them, and links to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np

from dest_agent.agent import DestAgent
from dest_agent.destination_service import BULK_SERVICE, DestinationService, add_bulk
from dest_agent.direct_listener import DirectListener
from dest_agent.incoming_attempt import IncomingAttempt
from source_agent.bulk_stream import BulkStream
from source_agent.destination_link import DestinationLink
from tests.dest_agent.arrivals import A, arriving
from tests.fakes.offering_host import OfferingHost
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server
from vm_migration.errors import MigrationError, Refused, innermost
from vm_migration.handover.states import State
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.server import AgentServer, Service
from vm_migration.link.tls import TlsFiles
from vm_migration.transfer.digests import PageWords
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream
from vm_migration.wire.bitmap_codec import encode_bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

PAGES = 1200
STREAMS = 2
TICKET = bytes(range(32))


@dataclass(frozen=True)
class Lane:
    bulk: BulkStream
    frames: OutgoingStream

    async def alive(self) -> None:
        """Wait until the far end answers."""
        await (await self.bulk.ask(self.frames.heartbeat(0)))

    async def send(self, part: OutgoingRound) -> int:
        """Send a share of a round and return how many pages were missing when it was answered."""
        for frame in part.pages():
            await self.bulk.send(frame)
        return (await (await self.bulk.ask(part.barrier()))).stale_pages


@dataclass
class FarEnd:
    """`bulk` is where the streams of its transport go; it may be put somewhere else, a cable's end say."""

    transport: str
    arrival: IncomingAttempt
    image: PageWords
    direct: DirectListener
    identities: dict[str, TlsFiles] = field(default_factory=dict)
    features: tuple[str, ...] = ("direct", "sealed")
    control: str = ""
    bulk: str = ""

    def bulk_target(self, attempt: str) -> IncomingAttempt:
        if attempt != A:
            raise Refused("not-arriving", f"Attempt {attempt} is not arriving here", "Ask for its state")
        return self.arrival

    def link(self, name: str = "host-a", attempt: str = A) -> DestinationLink:
        """Return a link with somebody's certificate."""
        return DestinationLink(
            host="host-b",
            control=self.control,
            bulk=self.bulk,
            tls=self.identities.get(name),
            attempt=attempt,
            transport=self.transport,
        )

    @asynccontextmanager
    async def streams(self, name: str = "host-a", ticket: bytes = TICKET, count: int = 1) -> AsyncIterator[list[Lane]]:
        """Have streams, and what is sent on each."""
        async with self.link(name) as link, link.streams(ticket, count) as streams:
            yield [Lane(stream, OutgoingStream(UUID(A), ordinal)) for ordinal, stream in enumerate(streams)]


@contextmanager
def an_end() -> Iterator[list[MigrationError]]:
    """Expect that streams come to an end within the context, and tell what their source is told of it."""
    found: list[MigrationError] = []
    try:
        yield found
    except (MigrationError, ExceptionGroup) as error:
        cause = innermost(error)
        if not isinstance(cause, MigrationError):
            raise
        found.append(cause)
        return
    raise AssertionError("The streams did not end")


def random_pages(count: int) -> PageWords:
    """Return pages of which every fifth is zero, from page 0 on."""
    pages: PageWords = np.random.default_rng(7).integers(1, 1 << 63, (count, PAGE_SIZE // 8), dtype=np.uint64)
    pages[::5] = 0
    return pages


@asynccontextmanager
async def far_end(folder: Path, transport: str, *, secured: bool = True) -> AsyncIterator[FarEnd]:
    """Serve a host on loopback, with a site's certificates or in plaintext; round 0 with every page is open.

    At its end nothing may map the arrival's RAM any more, whatever its streams came to.
    """
    identities: dict[str, TlsFiles] = {}
    if secured:
        create_authority(folder / "pki", "home")
        for name, role in (("host-a", Role.HOST), ("host-b", Role.HOST), ("host-c", Role.HOST), ("op", Role.OPERATOR)):
            identities[name] = issue(folder / "pki", Identity("home", role, name))
        create_authority(folder / "away", "home")
        identities["stranger"] = issue(folder / "away", Identity("home", Role.HOST, "host-a"))
    with arriving(folder, State.PREPARED) as held:
        ram = RamBlock.create("viaduct-ram-arriving", PAGES * PAGE_SIZE)
        arrival = IncomingAttempt(held.custody, ram, "host-a", TICKET, streams=STREAMS, full=False)
        far = FarEnd(transport, arrival, ram.words, cast("DirectListener", None), identities)
        address = ram.address
        del ram
        far.direct = DirectListener(far, "127.0.0.1", identities.get("host-b"))
        service = DestinationService(cast("DestAgent", far), "", "", far.direct)
        services = [
            Service(BULK_SERVICE, partial(add_bulk, service)),
            Service(
                "vm_migration.api.v1.Host", partial(add_HostServicer_to_server, OfferingHost(lambda: far.features))
            ),
        ]
        arrival.open_round(0, encode_bitmap(DirtyBitmap.full(PAGES)))
        try:
            async with AgentServer("127.0.0.1:0", identities.get("host-b"), services, grace=0.0) as server:
                far.control = server.address
                far.bulk = await far.direct.address() if transport != "grpc" else server.address
                try:
                    yield far
                finally:
                    await far.direct.close()
        finally:
            del far.image
            arrival.let_go_of_ram()
        assert not _maps_ram(address)


def _maps_ram(address: int) -> bool:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return any(line.startswith(f"{address:x}-") and "viaduct-ram-arriving" in line for line in lines)
