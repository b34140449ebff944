"""The two ways of a machine's own stream to its destination, behind one door.

::

    grpc     the process connects to this agent, which carries what it says: source_agent.own_stream.relay
    direct   the process connects to the other one by itself, with TLS of its own, through a port that the destination
             has opened for this attempt; this agent sees what its process says of it, and nothing else
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.own_stream.relay import relay
from source_agent.terms import DIRECT
from vm_migration.api.v1 import destination_pb2
from vm_migration.daemon.direct_offer import require_listed
from vm_migration.link.address import split_address
from vm_migration.link.machine_stream.order import connections
from vm_migration.machine.errors import MachineError
from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import OUT_SOCKET
from vmm.process.own_stream import Credentials, DirectTo, StreamTerms

_ASK: Final = 1.0
"""Seconds between two questions; its process takes the stream for abandoned after ten of them without one."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A way that is open. `begin` has the process send; `drained` waits until its connections have ended."""

    begin: Callable[[StreamTerms], Awaitable[None]]
    drained: Callable[[], Awaitable[None]]


@asynccontextmanager
async def carrier(account: Account, link: DestinationLink, ticket: bytes) -> AsyncIterator[Carrier]:
    """Have the way open that the attempt's terms name, for the length of the context; the body ends when it breaks.

    Raises:
        MigrationError: It cannot be opened.
        ExceptionGroup: Of what it broke with, or the body failed with.
    """
    custody, terms = account.custody, account.terms
    await link.require_streams_of_machines(direct=terms.transport == DIRECT)
    if terms.transport == DIRECT:
        to = await _listening_there(account, link, ticket)
        async with _asked_about(custody.port):
            yield Carrier(lambda stream: custody.port.start_direct_stream(to, stream), _nothing_to_drain)
        return
    path = str(custody.place.path / OUT_SOCKET)
    opened = partial(link.connection, ticket)
    async with relay(custody.place.path / OUT_SOCKET, opened, connections(terms.streams)) as carrying:
        yield Carrier(lambda stream: custody.port.start_stream(path, stream), carrying.drained)


async def _listening_there(account: Account, link: DestinationLink, ticket: bytes) -> DirectTo:
    """Have the destination open a port for this host's process, and return how it is reached.

    Raises:
        Refused: This host has no certificates by which the other can know it, or the destination opens none.
        InvalidInput: The certificates cannot be used.
        MigrationError: It does not answer.
    """
    files = await asyncio.to_thread(require_listed, account.around.tls)
    own = await asyncio.to_thread(files.load)
    request = destination_pb2.ListenForStreamRequest(key=account.key(), ticket=ticket, streams=account.terms.streams)
    there = await link.listen_for_stream(request)
    host, port = split_address(there.address)
    shown = Credentials(trusted=there.certificate, certificate=own.certificate, key=own.key)
    return DirectTo(host=host, port=port, name=account.record.peer, credentials=shown)


@asynccontextmanager
async def _asked_about(port: MachinePort) -> AsyncIterator[None]:
    """Ask about the stream every second for the length of the context: without its agent it is called off."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_ask(port), name="lease of a stream")
        yield
        asking.cancel()


async def _ask(port: MachinePort) -> None:
    while True:
        await asyncio.sleep(_ASK)  # that an agent lives is told by nothing but its asking
        with contextlib.suppress(MachineError):  # whoever drives the stream asks too, and acts on the answer
            await port.stream()


async def _nothing_to_drain() -> None:
    """Return: what the connections came to, the processes say."""
