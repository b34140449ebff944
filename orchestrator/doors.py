"""The doors of a site's orchestrators: one of them leads, and is asked; where it does not answer, the next is.

One that stands by says so, and one that cannot use the store may lead no more: another may reach it. While a new one
takes over, nobody leads for seconds: with several doors, all are tried for that long. With one, whoever asks hears at
once that it does not answer. Every call may be made twice.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc.aio
from grpc_health.v1 import health_pb2

from orchestrator.driven_row import stopped
from orchestrator.store.store import STORE_UNUSABLE
from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorStub
from vm_migration.errors import MigrationError, Refused, Unreachable
from vm_migration.link.call import call

if TYPE_CHECKING:
    from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorAsyncStub

STANDING_BY: Final = "standing-by"
TAKEOVER_SECONDS: Final = 6.0
_AROUND_SECONDS: Final = 0.2
_PROBE_SECONDS: Final = 1.0

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Method = Callable[["OrchestratorAsyncStub"], grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]]


class Doors:
    """Where orchestrators are met, and which of them was found to lead."""

    def __init__(self, addresses: Sequence[str], channel_to: Callable[[str], grpc.aio.Channel]) -> None:
        """Take addresses, and what returns the channel to one for the next call: after a renewal it is another."""
        self._addresses = tuple(addresses)
        self._channel_to = channel_to
        self._at = 0

    @property
    def alone(self) -> bool:
        """Whether there is no other to turn to."""
        return len(self._addresses) == 1

    @property
    def peer(self) -> str:
        """Who is asked, for people."""
        return f"orchestrator at {self._addresses[self._at]}"

    @property
    def stub(self) -> "OrchestratorAsyncStub":
        """Who is asked."""
        return OrchestratorStub(self._channel_to(self._addresses[self._at]))

    async def ask(self, method: Method[_Request, _Response], request: _Request, *, deadline: float) -> _Response:
        """Make a call, and return its answer; `deadline` is of each try, in seconds.

        Raises:
            MigrationError: What the orchestrator raised; where none answered that leads, Unreachable, or that the store
                cannot be used.
        """
        loop = asyncio.get_running_loop()
        until, failures = loop.time() + TAKEOVER_SECONDS, 0
        said: dict[str, Refused] = {}
        while True:
            peer = self.peer
            try:
                return await self._while_it_lives(call(method(self.stub), request, peer=peer, deadline=deadline))
            except Refused as error:
                if not self.turn_from(error) or self.alone:
                    raise
                said[peer] = error
            failures += 1
            if len(said) == len(self._addresses) and loop.time() >= until:
                raise _nobody_leads(tuple(said.values()))
            if failures % len(self._addresses) == 0:
                await asyncio.sleep(_AROUND_SECONDS)  # who leads next is known to none of them

    async def _while_it_lives(self, calling: Coroutine[object, object, _Response]) -> _Response:
        """Wait for a call; where there are other doors, for as long only as this one answers at all.

        Raises:
            MigrationError: As the call's; Unreachable when who was asked stands still, as one that is frozen does.
        """
        if self.alone:
            return await calling
        asked = asyncio.create_task(calling, name="call")
        try:
            while not (await asyncio.wait({asked}, timeout=_PROBE_SECONDS))[0]:
                check = _health_check(self._channel_to(self._addresses[self._at]))
                await call(check, health_pb2.HealthCheckRequest(), peer=self.peer, deadline=_PROBE_SECONDS)
            return await asked
        finally:
            await stopped(asked)

    async def silent(self) -> tuple[str, ...]:
        """Return the addresses at which nobody says that he serves."""

        async def serves(address: str) -> bool:
            check = _health_check(self._channel_to(address))
            try:
                await call(check, health_pb2.HealthCheckRequest(), peer=address, deadline=2 * _PROBE_SECONDS)
            except Unreachable:
                return False
            return True

        found = await asyncio.gather(*(serves(address) for address in self._addresses))
        return tuple(address for address, there in zip(self._addresses, found, strict=True) if not there)

    def turn_from(self, error: MigrationError) -> bool:
        """Turn to the next door where this one leads nowhere; what an orchestrator says of its hosts is an answer."""
        silent = isinstance(error, Unreachable) and self.peer in error.message
        closed = silent or error.code in {STANDING_BY, STORE_UNUSABLE}
        if closed:
            self._at = (self._at + 1) % len(self._addresses)
        return closed


def _health_check(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    """Return the call by which every daemon says that it serves; its stub's types do not name it."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def _nobody_leads(said: Sequence[Refused]) -> Refused:
    """Return the error for what each said; a store that cannot be used is why nobody leads."""
    for error in said:
        if error.code == STORE_UNUSABLE:
            return error
    texts = "; ".join(error.message for error in said)
    hint = "Look at their logs, and at the site's etcd: viaduct doctor"
    return Unreachable("nobody-leads", f"None of the site's orchestrators leads: {texts}", hint)
