"""Calls to a peer: each with a deadline, each failing as one of vm_migration.errors and nothing else."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import grpc.aio

from vm_migration.errors import Unreachable
from vm_migration.link.status import cut_off, from_rpc_error
from vm_migration.telemetry import traces

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, *, peer: str, deadline: float
) -> _Response:
    """Make a unary call and return its answer; `deadline` in seconds, `peer` names host and address for people.

    Raises:
        MigrationError: What the peer raised; Unreachable when nobody answered. After that nothing is known of what the
            peer did: ask it, never assume.
    """
    try:
        return await method(request, timeout=deadline, metadata=traces.carried())
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from None
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        raise cut_off(peer) from None


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[_Request, _Response], request: _Request, *, peer: str, silence: float
) -> AsyncGenerator[_Response, None]:
    """Yield what the peer streams; `silence` is the longest wait for one message in seconds.

    The call ends with the iteration: close the iterator (contextlib.aclosing) when leaving early.

    Raises:
        MigrationError: As `call`; Unreachable when the peer was silent for too long.
    """
    answer = method(request)
    try:
        while True:
            async with asyncio.timeout(silence):
                message = await answer.read()
            if message is grpc.aio.EOF:
                return
            yield message  # type: ignore[misc]  # read() is typed object beside EOF, which was just excluded
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from None
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        raise cut_off(peer) from None
    except TimeoutError:
        raise Unreachable("silent", f"{peer} was silent for {silence:g} s", "Ask again; the attempt goes on") from None
    finally:
        answer.cancel()


def _is_cancelled() -> bool:
    """Say whether it is this task that was cancelled: gRPC says so too of a channel that was closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
