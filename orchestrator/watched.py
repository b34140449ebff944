"""A stream of records of an orchestrator, opened again where it breaks, for as long as that is worth it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc.aio

from orchestrator.doors import Doors
from orchestrator.driven_row import pause
from orchestrator.store.store import STORE_UNUSABLE
from vm_migration.errors import Refused, Unreachable
from vm_migration.link.call import stream

if TYPE_CHECKING:
    from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorAsyncStub

_SILENCE_SECONDS: Final = 15.0
_SILENCE_BESIDE_OTHERS: Final = 5.0  # a record comes every two seconds; another orchestrator may lead by now
PATIENCE_SECONDS: Final = 60.0  # an orchestrator that is started again is back in seconds
_Request = TypeVar("_Request")
_Record = TypeVar("_Record")
Stream = Callable[["OrchestratorAsyncStub"], grpc.aio.UnaryStreamMultiCallable[_Request, _Record]]


async def watched(
    doors: Doors, method: Stream[_Request, _Record], request: _Request
) -> AsyncGenerator[_Record | Unreachable, None]:
    """Yield every record until the stream ends, and the reason each time that nobody can be heard.

    Raises:
        Unreachable: Nobody could be heard for as long as this is patient.
        MigrationError: What the orchestrator raised.
    """
    loop = asyncio.get_running_loop()
    silence = _SILENCE_SECONDS if doors.alone else _SILENCE_BESIDE_OTHERS
    heard, failures = loop.time(), 0
    while True:
        try:
            async for record in stream(method(doors.stub), request, peer=doors.peer, silence=silence):
                heard, failures = loop.time(), 0
                yield record
        except Refused as error:
            unheard = _unheard(error)
            if unheard is None:
                raise
            doors.turn_from(error)
            if loop.time() - heard > PATIENCE_SECONDS:
                raise unheard from None
            yield unheard
            await pause(failures)
            failures += 1
        else:
            return


def _unheard(error: Refused) -> Unreachable | None:
    """Return why nobody could be heard; who cannot use the store has nothing to tell either."""
    if error.code == STORE_UNUSABLE:
        return Unreachable(error.code, error.message, error.hint)
    return error if isinstance(error, Unreachable) else None
