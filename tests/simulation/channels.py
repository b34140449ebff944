"""The callers' end of the simulated network: what grpc.aio offers of a channel, as far as Viaduct uses it."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Self, TypeVar, cast

import grpc
import grpc.aio

from tests.simulation.network import Network
from tests.simulation.serving import CallContext, CallFailed, Endpoint, Metadata, Status, cut_off
from tests.simulation.streams import CANCELLED, DEADLINE, RESET, UNAVAILABLE, StreamCall, started
from tests.simulation.virtual_loop import Process
from vm_migration.link.channel import OpenChannel
from vm_migration.link.identity import Identity
from vm_migration.link.tls import TlsFiles

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


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
        timer = None if deadline is None else loop.call_later(deadline, self._fail, DEADLINE)
        self._channel.entered(self, lambda: self._fail(CANCELLED))
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
            self._network.loop.call_later(self._network.random.random(), self._fail, RESET)

    def _arrive(self) -> None:
        endpoint = self._network.endpoints.get(self._channel.address)
        if endpoint is None or not endpoint.process.alive:
            self._to_caller(partial(self._fail, UNAVAILABLE))
            return
        self._endpoint = endpoint
        self._task = started(self._network, endpoint, self._serve(endpoint))
        endpoint.process.at_death[self] = self._server_died

    def _send_again(self) -> None:
        what = f"late copy of {self._method}"
        self._network.send(self._caller.host, self._channel.host, self._arrive_again, what)

    def _arrive_again(self) -> None:
        endpoint = self._network.endpoints.get(self._channel.address)
        if endpoint is not None and endpoint.process.alive:
            started(self._network, endpoint, self._serve_unheard(endpoint))

    def _server_died(self) -> None:
        self._to_caller(partial(self._fail, RESET))

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
            started(self._network, self._endpoint, cut_off(self._task))

    def _succeed(self, payload: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(payload)

    def _fail(self, status: Status) -> None:
        if not self._answer.done():
            self._answer.set_exception(status.error())
