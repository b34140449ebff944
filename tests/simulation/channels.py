"""The callers' end of the simulated network: what grpc.aio offers of a channel, as far as Viaduct uses it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Final, Generic, Self, TypeVar, cast

import grpc
import grpc.aio

from tests.simulation.network import KEEPALIVE, Network
from tests.simulation.serving import CallContext, CallFailed, Endpoint, Metadata, Status, cut_off
from tests.simulation.virtual_loop import Process
from vm_migration.link.channel import OpenChannel
from vm_migration.link.identity import Identity
from vm_migration.link.tls import TlsFiles

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_WINDOW: Final = 16
"""Messages of a stream that wait to be read, before a writer waits."""
_UNAVAILABLE: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
_RESET: Final = Status(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
_DEADLINE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_CANCELLED: Final = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")


class Caller:
    """A process that calls others, and the identity that its certificate tells."""

    def __init__(self, network: Network, host: str, process: Process, identity: Identity) -> None:
        self.network: Final = network
        self.host: Final = host
        self.process: Final = process
        self.identity: Final = identity

    def channels(self) -> OpenChannel:
        """Return what opens channels in this process's name."""

        def open_channel(address: str, _tls: TlsFiles | None, _peer: str) -> grpc.aio.Channel:
            return cast("grpc.aio.Channel", SimulatedChannel(self, address))

        return open_channel


class SimulatedChannel:
    """A channel to one address; nothing is sent before the first call."""

    def __init__(self, caller: Caller, address: str) -> None:
        self._caller: Final = caller
        self._address: Final = address
        self._open: Final[dict[object, Callable[[], object]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """End every call of this channel."""
        del grace
        for cancel in list(self._open.values()):
            cancel()

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[_Request], bytes],
        response_deserializer: Callable[[bytes], _Response],
        _registered_method: bool = False,
    ) -> "UnaryMethod[_Request, _Response]":
        return UnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[_Request], bytes],
        response_deserializer: Callable[[bytes], _Response],
        _registered_method: bool = False,
    ) -> "Callable[[_Request], StreamCall[_Response]]":
        def start(request: _Request, *, timeout: float | None = None, metadata: Metadata = ()) -> StreamCall[_Response]:
            del timeout
            return StreamCall(self, method, request_serializer(request), metadata, response_deserializer)

        return start

    def stream_stream(self, method: str) -> "Callable[[Metadata], StreamCall[bytes]]":
        """Only for messages that are bytes already."""

        def start(metadata: Metadata) -> StreamCall[bytes]:
            return StreamCall(self, method, None, metadata, bytes)

        return start

    @property
    def caller(self) -> Caller:
        return self._caller

    @property
    def address(self) -> str:
        return self._address

    @property
    def host(self) -> str:
        """The host that the address is of."""
        return self._address.partition(":")[0]

    def entered(self, key: object, cancel: Callable[[], object]) -> None:
        """Remember a call that is open."""
        self._open[key] = cancel
        self._caller.process.at_death[key] = lambda: self._died(key)

    def left(self, key: object) -> None:
        """Forget a call that is over."""
        self._open.pop(key, None)
        self._caller.process.at_death.pop(key, None)

    def _died(self, key: object) -> None:
        if isinstance(key, UnaryCall | StreamCall):
            key.caller_died()


class UnaryMethod(Generic[_Request, _Response]):
    """One method of one request and one answer."""

    def __init__(
        self,
        channel: SimulatedChannel,
        method: str,
        serialize: Callable[[_Request], bytes],
        deserialize: Callable[[bytes], _Response],
    ) -> None:
        self._channel: Final = channel
        self._method: Final = method
        self._serialize: Final = serialize
        self._deserialize: Final = deserialize

    async def __call__(
        self,
        request: _Request,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as grpc.aio calls it
        metadata: Metadata = (),
    ) -> _Response:
        """Call, and return the answer; raises AioRpcError."""
        call = UnaryCall(self._channel, self._method, self._serialize(request), metadata)
        return self._deserialize(await call.run(timeout))


class UnaryCall:
    """One unary call on its way."""

    def __init__(self, channel: SimulatedChannel, method: str, payload: bytes, metadata: Metadata) -> None:
        self._channel: Final = channel
        self._caller: Final = channel.caller
        self._network: Final = channel.caller.network
        self._method: Final = method
        self._payload: Final = payload
        self._context: Final = CallContext(channel.caller.identity, metadata)
        self._answer: Final[asyncio.Future[bytes]] = self._network.loop.create_future()
        self._endpoint: Endpoint | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False

    async def run(self, deadline: float | None) -> bytes:
        """Return the answer.

        Raises:
            AioRpcError: There is none.
        """
        loop = self._network.loop
        timer = None if deadline is None else loop.call_later(deadline, self._fail, _DEADLINE)
        self._channel.entered(self, lambda: self._fail(_CANCELLED))
        self._send()
        try:
            return await self._answer
        finally:
            if timer is not None:
                timer.cancel()
            self._channel.left(self)
            if not self._over:
                self._to_server(self._cancel_task, f"end of {self._method}")

    def caller_died(self) -> None:
        """The caller's process has ended: its connections are reset, and the server hears of it."""
        self._to_server(self._cancel_task, f"end of {self._method}")

    def _send(self) -> None:
        what = self._method.rpartition("/")[2]
        if self._network.is_lost(what):
            self._lost()
            return
        self._to_server(self._arrive, self._method)
        if self._network.comes_twice(what):
            late = self._network.random.choice((0.01, 0.5, 4.0)) * self._network.random.random()
            self._network.loop.call_later(late, self._send_again)

    def _to_server(self, deliver: Callable[[], None], what: str) -> None:
        self._network.send(self._caller.host, self._channel.host, deliver, what)

    def _to_caller(self, deliver: Callable[[], None]) -> None:
        self._network.send(self._channel.host, self._caller.host, deliver, f"answer of {self._method}")

    def _lost(self) -> None:
        """Nobody hears anything of it, or the connection is found broken."""
        if self._network.random.random() < 0.5:
            self._network.loop.call_later(self._network.random.random(), self._fail, _RESET)

    def _arrive(self) -> None:
        endpoint = self._network.endpoints.get(self._channel.address)
        if endpoint is None or not endpoint.process.alive:
            self._to_caller(partial(self._fail, _UNAVAILABLE))
            return
        self._endpoint = endpoint
        self._task = _started(self._network, endpoint, self._serve(endpoint))
        endpoint.process.at_death[self] = self._server_died

    def _send_again(self) -> None:
        what = f"late copy of {self._method}"
        self._network.send(self._caller.host, self._channel.host, self._arrive_again, what)

    def _arrive_again(self) -> None:
        endpoint = self._network.endpoints.get(self._channel.address)
        if endpoint is not None and endpoint.process.alive:
            _started(self._network, endpoint, self._serve_unheard(endpoint))

    def _server_died(self) -> None:
        self._to_caller(partial(self._fail, _RESET))

    async def _serve_unheard(self, endpoint: Endpoint) -> None:
        context = CallContext(self._caller.identity, self._context.metadata)
        try:
            await endpoint.answer(self._method, self._payload, context)
        except CallFailed:
            return

    async def _serve(self, endpoint: Endpoint) -> None:
        try:
            payload = await endpoint.answer(self._method, self._payload, self._context)
        except CallFailed as failed:
            reply: Callable[[], None] = partial(self._fail, failed.status)
        else:
            reply = partial(self._succeed, payload)
        finally:
            endpoint.process.at_death.pop(self, None)
        self._over = True
        if self._network.is_lost(f"answer of {self._method.rpartition('/')[2]}"):
            self._lost()
        else:
            self._to_caller(reply)

    def _cancel_task(self) -> None:
        if self._task is not None and self._endpoint is not None:
            _started(self._network, self._endpoint, cut_off(self._task))

    def _succeed(self, payload: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(payload)

    def _fail(self, status: Status) -> None:
        if not self._answer.done():
            self._answer.set_exception(status.error())


class StreamCall(Generic[_Response]):
    """A call that answers with a stream, and may send one."""

    def __init__(
        self,
        channel: SimulatedChannel,
        method: str,
        payload: bytes | None,
        metadata: Metadata,
        deserialize: Callable[[bytes], _Response],
    ) -> None:
        self._channel: Final = channel
        self._network: Final = channel.caller.network
        self._caller: Final = channel.caller
        self._method: Final = method
        self._payload: Final = payload
        self._context: Final = CallContext(channel.caller.identity, metadata)
        self._deserialize: Final = deserialize
        self._answers: Final[deque[bytes]] = deque()
        self._ended: Status | None = None
        self._finished = False
        self._changed: Final = asyncio.Event()
        self._in_flight = 0
        self._messages: Final[deque[bytes]] = deque()
        self._no_more = False
        self._arrived: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._endpoint: Endpoint | None = None
        self._last_there = 0.0
        self._last_here = 0.0
        self._dumb = False
        """The connection carries nothing any more, and nobody has noticed."""
        channel.entered(self, self.cancel)
        self._network.connected(self, self._caller.host, channel.host, self._reset)
        self._to_server(self._arrive)

    # the caller's hands

    async def read(self) -> object:
        """Return the next message, EOF at a good end; raises AioRpcError at another."""
        try:
            while not self._answers:
                if self._finished:
                    if self._ended is not None:
                        raise self._ended.error()
                    return grpc.aio.EOF
                self._changed.clear()
                await self._changed.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._deserialize(self._answers.popleft())

    async def write(self, message: bytes) -> None:
        """Send a message; raises InvalidStateError or AioRpcError once the call is over."""
        if self._finished:
            raise asyncio.InvalidStateError("RPC already finished.")
        try:
            while self._in_flight >= _WINDOW:
                self._changed.clear()
                await self._changed.wait()
                if self._finished:
                    raise (self._ended or _RESET).error()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._in_flight += 1
        self._to_server(partial(self._take, message))
        await asyncio.sleep(0)

    async def done_writing(self) -> None:
        """Say that nothing follows."""
        self._to_server(self._take_end)

    def cancel(self) -> bool:
        """End the call."""
        if self._finished:
            return False
        self._finish(_CANCELLED)
        self._to_server(self._cancel_task)
        return True

    def caller_died(self) -> None:
        """The caller's process has ended: its connections are reset, and the server hears of it."""
        self._network.disconnected(self)
        self._to_server(self._cancel_task)

    # on the way

    def _to_server(self, deliver: Callable[[], None]) -> None:
        if not self._carries():
            return
        self._last_there = self._network.send(
            self._caller.host, self._channel.host, deliver, self._method, after=self._last_there
        )

    def _to_caller(self, deliver: Callable[[], None]) -> None:
        if not self._carries():
            return
        self._last_here = self._network.send(
            self._channel.host, self._caller.host, deliver, f"answer of {self._method}", after=self._last_here
        )

    def _carries(self) -> bool:
        if self._dumb:
            return False
        if not self._network.is_lost(f"a message of {self._method.rpartition('/')[2]}"):
            return True
        self._dumb = True
        noticed = KEEPALIVE if self._network.random.random() < 0.5 else 0.001
        self._network.loop.call_later(noticed, self._reset)
        return False

    def _reset(self) -> None:
        self._dumb = True
        self._finish(_RESET)
        self._cancel_task()

    def _finish(self, status: Status | None) -> None:
        if self._finished:
            return
        self._finished, self._ended = True, status
        self._channel.left(self)
        self._network.disconnected(self)
        self._changed.set()

    def _here(self, payload: bytes) -> None:
        self._answers.append(payload)
        self._changed.set()

    # at the server

    def _arrive(self) -> None:
        endpoint = self._network.endpoints.get(self._channel.address)
        if endpoint is None or not endpoint.process.alive:
            self._to_caller(partial(self._finish, _UNAVAILABLE))
            return
        self._endpoint = endpoint
        self._task = _started(self._network, endpoint, self._serve(endpoint))
        endpoint.process.at_death[self] = lambda: self._to_caller(partial(self._finish, _RESET))

    async def _serve(self, endpoint: Endpoint) -> None:
        status: Status | None = None
        try:
            messages = self._received()
            async for payload in endpoint.stream(self._method, self._payload, messages, self._context):
                self._to_caller(partial(self._here, payload))
        except CallFailed as failed:
            status = failed.status
        finally:
            endpoint.process.at_death.pop(self, None)
        self._to_caller(partial(self._finish, status))

    async def _received(self) -> AsyncIterator[bytes]:
        while True:
            while not self._messages:
                if self._no_more:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            message = self._messages.popleft()
            self._to_caller(self._taken)
            yield message

    def _take(self, message: bytes) -> None:
        self._messages.append(message)
        self._arrived.set()

    def _taken(self) -> None:
        self._in_flight -= 1
        self._changed.set()

    def _take_end(self) -> None:
        self._no_more = True
        self._arrived.set()

    def _cancel_task(self) -> None:
        if self._task is not None and self._endpoint is not None:
            _started(self._network, self._endpoint, cut_off(self._task))


def _started(network: Network, endpoint: Endpoint, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    return network.loop.create_task(work, name="call", context=endpoint.process.context.copy())
