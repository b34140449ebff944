"""Where direct streams come in: a port of its own, open from the first attempt that asks for one.

::

    accepted -> says anything -> hands shaken, hello read -> a host of the site? its ticket? -> frames and answers
    |          1024 at most     32 at most                |
    '-------------------- within 5 s ---------------------'

Of more than that, one makes way (dest_agent.waiting). Who has said nothing costs a descriptor, and no thread.
A peer that is refused before its hello is not answered: nothing is known of what it understands.
"""

import asyncio
import socket
import time
from collections.abc import Coroutine
from contextlib import aclosing
from contextvars import Context
from functools import partial
from typing import Final

from dest_agent.answering import told
from dest_agent.direct_stream import DirectStream
from dest_agent.letting_in import Arrivals, let_in
from dest_agent.waiting import Origin, WaitingRoom
from vm_migration.errors import MigrationError, Refused, Unauthorised
from vm_migration.link.address import join_address, refuse_plaintext
from vm_migration.link.authorisation import authorise
from vm_migration.link.boundary import outward
from vm_migration.link.direct_hello import Hello
from vm_migration.link.direct_tls import ServerContexts
from vm_migration.link.direct_wire import DirectWire
from vm_migration.link.identity import Identity
from vm_migration.link.refusals import note_refusal
from vm_migration.link.server_limits import own_descriptors
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import CONNECTIONS, IDENTIFIED_CONNECTIONS

HELLO_SECONDS: Final = 5.0
"""In which a connection must have said which stream it is."""
MOST_SILENT: Final = 1024
"""Connections that have said nothing at all; never more than a quarter of the descriptors."""
MOST_SPEAKING: Final = 32
"""Connections that have begun to say which stream they are."""
_METHOD: Final = "/vm_migration.api.v1.Bulk/Send"
"""The call that a direct stream stands for: who may make that one may open a stream."""
_BACKLOG: Final = 1024
_OUT_OF_DESCRIPTORS: Final = 1.0
_LINES_AT_ONCE: Final = 20
_LINES_PER_SECOND: Final = 0.2
_log: Final = logs.get(__name__)


class DirectListener:
    """Takes the direct streams of one agent's arrivals in."""

    def __init__(self, arrivals: Arrivals, host: str, tls: TlsFiles | None) -> None:
        """Describe it; `host` is the address to listen at, and without TLS must be a loopback one."""
        self._arrivals: Final = arrivals
        self._host: Final = host
        self._tls: Final = tls
        self._contexts: ServerContexts | None = None
        self._listening: socket.socket | None = None
        self._binding: Final = asyncio.Lock()
        self._silent: Final = WaitingRoom(max(1, min(MOST_SILENT, own_descriptors() // 4)))
        self._speaking: Final = WaitingRoom(MOST_SPEAKING)
        self._lines: Final = Allowance(_LINES_AT_ONCE, _LINES_PER_SECOND)
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def address(self) -> str:
        """Return where it listens, which it does from the first time on until `close`.

        Raises:
            InvalidInput: Plaintext is not allowed there, or the TLS files are unusable.
            Refused: It cannot listen there.
        """
        async with self._binding:  # two attempts may be the first at once
            if self._listening is None:
                self._listening = await self._bound()
                # Whoever asked first must not be in the log of every stream that comes.
                self._spawn(self._accept(self._listening), "direct listener", Context())
            return join_address(self._host, self._listening.getsockname()[1])

    async def close(self) -> None:
        """End the listener and every stream."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _bound(self) -> socket.socket:
        if self._tls is None:
            refuse_plaintext(join_address(self._host, 0))
        else:
            self._contexts = ServerContexts(self._tls)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, 0, type=socket.SOCK_STREAM)
            family, kind, protocol, _, where = found[0]
            listening = socket.socket(family, kind, protocol)
            try:
                listening.setblocking(False)
                listening.bind(where)
                listening.listen(_BACKLOG)
            except OSError:
                listening.close()
                raise
        except OSError as error:
            text = f"Direct streams cannot be taken in at {self._host}: {error.strerror or error}"
            raise Refused("direct-unavailable", text, "Correct [host] bulk, or use --transport grpc") from None
        return listening

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor is free, say; those that are open go on
                _log.warning("direct stream not accepted", reason=str(error))
                await asyncio.sleep(_OUT_OF_DESCRIPTORS)  # a descriptor that is free again tells nobody
                continue
            CONNECTIONS.add("direct")
            origin = Origin.of(where[0])
            serving = self._spawn(self._serve(connection, origin, join_address(*where[:2])), "direct stream")
            self._enter(self._silent, serving, origin)
            await asyncio.sleep(0)  # a flood must not keep the loop, and one that makes way must have begun

    def _enter(self, room: WaitingRoom, task: "asyncio.Task[None]", origin: Origin) -> None:
        gone = room.enter(task, origin)
        if gone:
            self._tell("direct stream let go", address=gone, reason="others come, and it does not say what it is")

    def _tell(self, event: str, **fields: str) -> None:
        """Warn of what anybody on the network can bring about, and not without end."""
        withheld = self._lines.take(event, time.monotonic())
        if withheld is not None:
            more: dict[str, object] = {"withheld": withheld} if withheld else {}
            _log.warning(event, **fields, **more)

    async def _serve(self, connection: socket.socket, origin: Origin, address: str) -> None:
        by = time.monotonic() + HELLO_SECONDS
        try:
            await _spoken(connection, HELLO_SECONDS)
            self._speaks(origin)
            stream = DirectStream(self._wire(connection))
        except OSError as error:  # silent for too long, or gone already
            connection.close()
            self._tell("direct stream ended", reason=str(error))
            return
        except BaseException:  # it makes way, or this listener ends
            connection.close()
            raise
        try:
            await self._served(stream, address, by - time.monotonic())
        except Unauthorised as error:
            note_refusal(error, _METHOD, None, address)
        except MigrationError as error:
            self._tell("direct stream refused", code=error.code, reason=error.message)
        except OSError as error:
            self._tell("direct stream ended", reason=str(error))
        finally:
            stream.close()

    def _wire(self, connection: socket.socket) -> DirectWire:
        connection.setblocking(False)
        if self._contexts is None:
            return DirectWire(connection)
        context = self._contexts.context()
        return DirectWire(context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False))

    async def _served(self, stream: DirectStream, address: str, seconds: float) -> None:
        hello, identity = await stream.greeted(seconds)
        if identity is not None:
            IDENTIFIED_CONNECTIONS.add("direct")
        try:
            await self._take(stream, hello, identity)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  # as at the boundary of gRPC: it must not leave with its text
            refusal = outward(error, _METHOD)
            if isinstance(refusal, Unauthorised):
                note_refusal(refusal, _METHOD, identity, address)
            await stream.refuse(refusal)

    async def _take(self, stream: DirectStream, hello: Hello, identity: Identity | None) -> None:
        if self._contexts is not None:
            authorise(self._contexts.site, _METHOD, identity)
        name = None if identity is None else identity.name
        arriving = let_in(self._arrivals, str(hello.attempt), name, hello.ticket, hello.stream)
        self._left_waiting()
        progress = partial(arriving.progress, hello.stream)
        next_answer = partial(stream.next_answer, arriving, hello.stream)
        # Its thread waits for bytes with RAM in its hands: an attempt's end must end it, whatever the source asked for.
        async with aclosing(told(progress, next_answer, tells=hello.tells, looks=True)) as answers:
            async for answer in answers:
                await stream.answer(answer)

    def _speaks(self, origin: Origin) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._silent.leave(task)
            self._enter(self._speaking, task, origin)

    def _left_waiting(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._speaking.leave(task)

    def _spawn(
        self, work: Coroutine[None, None, None], name: str, context: Context | None = None
    ) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._silent.leave)
        task.add_done_callback(self._speaking.leave)
        return task


async def _spoken(connection: socket.socket, seconds: float) -> None:
    """Wait until the peer has said anything, or has ended the connection.

    Raises:
        TimeoutError: It did neither for so many seconds.
    """
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    connection.setblocking(False)
    loop.add_reader(connection, heard.set)
    try:
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        raise TimeoutError("Nothing came in time") from None
    finally:
        loop.remove_reader(connection)
