"""A stream of messages both ways over the simulated network, as its caller holds it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import grpc
import grpc.aio

from tests.simulation.network import KEEPALIVE, Network
from tests.simulation.serving import CallContext, CallFailed, Endpoint, Metadata, Status, cut_off

if TYPE_CHECKING:
    from tests.simulation.channels import SimulatedChannel

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_WINDOW: Final = 16
"""Messages of a stream that wait to be read, before a writer waits."""
UNAVAILABLE: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
RESET: Final = Status(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
DEADLINE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
CANCELLED: Final = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")


class StreamCall(Generic[_Response]):
    """A call that answers with a stream, and may send one."""

    def __init__(
        self,
        channel: "SimulatedChannel",
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
                    raise (self._ended or RESET).error()
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
        self._finish(CANCELLED)
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
        self._finish(RESET)
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
            self._to_caller(partial(self._finish, UNAVAILABLE))
            return
        self._endpoint = endpoint
        self._task = started(self._network, endpoint, self._serve(endpoint))
        endpoint.process.at_death[self] = lambda: self._to_caller(partial(self._finish, RESET))

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
            started(self._network, self._endpoint, cut_off(self._task))


def started(network: Network, endpoint: Endpoint, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """Start what serves a call, in the name of whoever serves it."""
    return network.loop.create_task(work, name="call", context=endpoint.process.context.copy())
