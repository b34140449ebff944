"""A bulk stream over a connection of its own, under TLS 1.3: docs/protocol/direct.md.

A thread seals and writes frames one after the other while the loop makes the next ones; a few may wait for it, so that
neither waits for the other at every frame.
"""

import asyncio
import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from queue import SimpleQueue
from typing import Final

from source_agent.bulk_stream import Unsent
from source_agent.pulse import STALL
from vm_migration.errors import InvalidInput, MigrationError, Unauthorised, Unreachable
from vm_migration.link.address import refuse_plaintext, split_address
from vm_migration.link.direct_answer import read_answer
from vm_migration.link.direct_hello import Hello, encode_hello
from vm_migration.link.direct_threads import DirectThreads
from vm_migration.link.direct_tls import client_context, identity_of
from vm_migration.link.direct_wire import DirectWire
from vm_migration.link.identity import Role
from vm_migration.link.sealed_wire import SealedWire
from vm_migration.link.sealing import SECRET_BYTES, NotSealed
from vm_migration.link.tls import TlsFiles

_MOST_WAITING: Final = 4
"""Messages that are taken and not written yet, the one that is being written among them."""
_TLS_HINT: Final = "Compare both with viaduct pki show: same authority, valid today, named as configured"
_SEALED_HINT: Final = "Configure [tls], or use --transport direct"
_HINT: Final = "Check the address, that its agent runs, and that no firewall is between"


class DirectCarrier:
    """One connection whose hello is written; `peer` names host and address for people. `close` must be called."""

    def __init__(self, threads: DirectThreads, peer: str) -> None:
        self._threads: Final = threads
        self._peer: Final = peer
        self._loop: Final = asyncio.get_running_loop()
        self._queue: Final[SimpleQueue[tuple[bytes | memoryview, ...] | None]] = SimpleQueue()
        self._taken = 0
        self._written = 0
        self._broken = False
        self._room: Final = asyncio.Event()
        self._wants_room = False
        threads.begin(self._write_all)

    async def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Take a message once there is room for it to wait."""
        while self._taken - self._written >= _MOST_WAITING and not self._broken:
            self._room.clear()
            self._wants_room = True
            if self._taken - self._written >= _MOST_WAITING and not self._broken:  # nor has there been any since
                await self._room.wait()
        if self._broken:
            raise Unsent
        self._taken += 1
        self._queue.put(tuple(parts))

    def close(self) -> None:
        """End the connection and what works on it; what waits is not written."""
        self._threads.wire.shut()
        self._queue.put(None)
        self._threads.close()

    def _write_all(self) -> None:
        """Write what is taken, one after the other, until the end, or until something cannot be; in a thread."""
        try:
            while (parts := self._queue.get()) is not None:
                self._threads.wire.write(parts)
                self._written += 1
                self._tell_of_room()
        except OSError:
            pass  # whoever reads knows why; after a frame that is missing none may follow
        finally:
            self._broken = True
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        if self._wants_room:
            self._wants_room = False
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._room.set)

    async def read(self) -> bytes | None:
        """Return the peer's next answer; None where it closed the stream."""
        try:
            return await self._threads.begin(partial(read_answer, self._threads.wire))
        except OSError as error:
            raise _unreachable(self._peer, error) from None

    def cancel(self) -> None:
        """End the connection."""
        self._threads.wire.shut()


@asynccontextmanager
async def direct_carrier(
    address: str, tls: TlsFiles | None, host: str, hello: Hello, peer: str
) -> AsyncIterator[DirectCarrier]:
    """Keep a stream open to a direct listener's address for the length of the context; `host` must be who listens.

    Raises:
        InvalidInput: It is to be sealed, and there is no TLS to agree on a secret.
        MigrationError: Nobody listens there, or somebody else.
    """
    if tls is None:
        refuse_plaintext(address)
        if hello.sealed:
            raise InvalidInput(
                "sealed-without-tls", "Sealed streams need TLS, which carries their secret", _SEALED_HINT
            )
    secret = secrets.token_bytes(SECRET_BYTES) if hello.sealed else b""
    message = encode_hello(hello) + secret
    deadline = time.monotonic() + STALL
    wire = DirectWire(await _connected(address, tls, host, peer))
    threads = DirectThreads(wire)
    try:
        # How long a destination that lives may read nothing is the pulse's to say: the kernel would give up before.
        wire.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        try:
            await threads.begin(partial(_introduced, wire, tls, host, message, deadline))
            if secret:
                wire.leave_tls()
                threads.wire = SealedWire(wire, secret, is_source=True)
        except OSError as error:
            raise _unreachable(peer, error) from None
        carrier = DirectCarrier(threads, peer)
    except BaseException:
        threads.close()
        raise
    try:
        yield carrier
    finally:
        carrier.close()


async def _connected(address: str, tls: TlsFiles | None, host: str, peer: str) -> socket.socket:
    """Return a connection to the first of a name's addresses that takes one; under TLS hands are still to be shaken."""
    context = None if tls is None else client_context(tls)
    try:
        connection = await _to_any(*split_address(address), asyncio.get_running_loop().time() + STALL)
    except OSError as error:
        raise _unreachable(peer, error) from None
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise _unreachable(peer, error) from None
        raise


async def _to_any(name: str, port: int, deadline: float) -> socket.socket:
    """Connect to one address of a name after the other; each may take its share of the time that is left.

    Raises:
        OSError: None took a connection: why the last one did not.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout_at(deadline):
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    why = OSError(f"{name} has no address")
    for tried, (family, kind, protocol, _, where) in enumerate(found):
        share = (deadline - loop.time()) / (len(found) - tried)
        try:
            with contextlib.ExitStack() as undone:
                connection = undone.enter_context(socket.socket(family, kind, protocol))
                connection.setblocking(False)
                async with asyncio.timeout(share):
                    await loop.sock_connect(connection, where)
                undone.pop_all()
                return connection
        except OSError as error:
            why = error
    raise why


def _introduced(wire: DirectWire, tls: TlsFiles | None, host: str, message: bytes, deadline: float) -> None:
    """Shake hands, see that the host is who was meant, and say the hello."""
    wire.handshake(deadline)
    identity = identity_of(wire.connection)
    if tls is not None:
        own = tls.load().identity
        if identity is None or (identity.site, identity.role, identity.name) != (own.site, Role.HOST, host):
            who = "nobody" if identity is None else identity.uri
            raise Unauthorised("wrong-host", f"{who} listens where {host} of site {own.site} was told to", _HINT)
    try:
        wire.write((message,), deadline)
    except OSError:
        wire.read_exactly(memoryview(bytearray(1)), deadline)  # which says why, where the peer has said it
        raise


def _unreachable(peer: str, error: OSError) -> MigrationError:
    if isinstance(error, NotSealed):
        text = f"What {peer} answers is not sealed as agreed: it may not accept this side's certificate ({error})"
        return Unreachable("tls", text, _TLS_HINT)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        text = f"{peer} and this side do not accept each other's certificates on a direct stream"
        return Unreachable("tls", f"{text} ({error.reason or error})", _TLS_HINT)
    why = "it did not answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    return Unreachable("unreachable", f"Direct stream to {peer} broke: {why}", _HINT)
