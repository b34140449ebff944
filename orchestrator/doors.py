"""The doors of a site's orchestrators: one of them leads, and is asked; where it does not answer, the next is.

One that stands by says so. While a new one takes over, nobody leads for seconds: with several doors, all are tried for
that long. With one, whoever asks hears at once that it does not answer. Every call may be made twice.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc.aio

from orchestrator.driven_row import pause
from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorStub
from vm_migration.errors import MigrationError, Unreachable
from vm_migration.link.call import call

if TYPE_CHECKING:
    from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorAsyncStub

STANDING_BY: Final = "standing-by"
TAKEOVER_SECONDS: Final = 6.0

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Method = Callable[["OrchestratorAsyncStub"], grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]]


class Doors:
    """Open channels to orchestrators, and which of them was found to lead."""

    def __init__(self, channels: Sequence[tuple[str, grpc.aio.Channel]]) -> None:
        """Take addresses, which are for people, with their channels."""
        self._doors = tuple((f"orchestrator at {address}", OrchestratorStub(channel)) for address, channel in channels)
        self._at = 0

    @property
    def peer(self) -> str:
        """Who is asked, for people."""
        return self._doors[self._at][0]

    @property
    def stub(self) -> "OrchestratorAsyncStub":
        """Who is asked."""
        return self._doors[self._at][1]

    async def ask(self, method: Method[_Request, _Response], request: _Request, *, deadline: float) -> _Response:
        """Make a call, and return its answer; `deadline` is of each try, in seconds.

        Raises:
            MigrationError: What the orchestrator raised; Unreachable where none answered that leads.
        """
        loop = asyncio.get_running_loop()
        until, failures = loop.time() + (TAKEOVER_SECONDS if len(self._doors) > 1 else 0), 0
        while True:
            peer = self.peer
            try:
                return await call(method(self.stub), request, peer=peer, deadline=deadline)
            except Unreachable as error:
                failures += 1
                if not self.turn_from(error):
                    raise
                if failures >= len(self._doors) and loop.time() >= until:
                    raise
            if failures % len(self._doors) == 0:
                await pause(failures // len(self._doors) - 1)

    def turn_from(self, error: MigrationError) -> bool:
        """Turn to the next door where this one leads nowhere; what an orchestrator says of its hosts is an answer."""
        closed = error.code == STANDING_BY or self.peer in error.message
        if closed:
            self._at = (self._at + 1) % len(self._doors)
        return closed
