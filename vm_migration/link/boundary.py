"""Where a call enters a daemon: who may make it, and how its failure leaves.

::

    identity -> its turn (vm_migration.link.turnstile) -> its request is taken in -> may it? -> the method

gRPC would take a request in before anybody asks whose it is. To it every request is a stream here, so that whoever is
turned away is so before there is memory for what he sends.

Every call passes here once, and one that changes something is written down as it leaves (vm_migration.link.audit). A
MigrationError leaves as vm_migration.link.status says, and what a machine's process did as the kind that tells the
caller what to do about it. Anything else is our own fault: it is logged here and leaves without its text, which may
hold what the peer must not see.
"""

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple, TypeVar, cast

import grpc
import grpc.aio

from vm_migration.errors import InternalError, MigrationError, Refused, Stale, Unauthorised, Unreachable, innermost
from vm_migration.link.audit import API, Audit, no_audit
from vm_migration.link.authorisation import rule_of
from vm_migration.link.connections import CallingConnections
from vm_migration.link.entering_call import EnteringCall
from vm_migration.link.identity import Identity, peer_identity
from vm_migration.link.refusals import note_refusal, note_turned_away
from vm_migration.link.served import Context
from vm_migration.link.server_limits import USUAL, ServerLimits
from vm_migration.link.status import to_status
from vm_migration.link.turnstile import TurnedAway, Turnstile
from vm_migration.machine.errors import CutOff, MachineError, MachineGone
from vm_migration.telemetry import logs, traces
from vm_migration.telemetry.counts import IDENTIFIED_CONNECTIONS

Guard = Callable[[str, Identity | None], None]
"""Raises Unauthorised when an identity may not call a method; None stands for a plaintext peer."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_RpcHandler = grpc.RpcMethodHandler
_Function = Callable[[object, Context], Awaitable[object]]
_Generator = Callable[[object, Context], AsyncGenerator[object, None]]

_log: Final = logs.get(__name__)


class _Handler(NamedTuple):
    """A method's handler as gRPC makes it: its function under the name of its shape, None under the other three."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: object
    response_serializer: object
    unary_unary: object
    unary_stream: object
    stream_unary: object
    stream_stream: object


class Boundary(grpc.aio.ServerInterceptor):
    """The one interceptor of a server."""

    def __init__(self, guard: Guard, audit: Audit = no_audit, limits: ServerLimits = USUAL) -> None:
        """Take who lets calls through, who writes down those that change something, and how many a peer may have."""
        self._guard: Final = guard
        self._audit: Final = audit
        self._turnstile: Final = Turnstile(limits)
        self._connections: Final = CallingConnections()

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[_RpcHandler[_Request, _Response] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_RpcHandler[_Request, _Response] | None":
        """Wrap the method's handler, whatever its shape; None, which gRPC answers with UNIMPLEMENTED, stays None."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # The stubs give handlers of grpc.aio the synchronous types, and hide that they are named tuples.
        wrapped = self._wrapped(cast("_Handler", handler), handler_call_details.method)
        return cast("_RpcHandler[_Request, _Response]", wrapped)

    def _wrapped(self, handler: _Handler, method: str) -> _Handler:
        shape = _shape(streams=handler.request_streaming, answers=handler.response_streaming)
        function: object = getattr(handler, shape)
        streams = handler.request_streaming
        guarded: object
        if inspect.isasyncgenfunction(function):
            guarded = self._generator(cast("_Generator", function), method, streams=streams)
        else:
            guarded = self._coroutine(cast("_Function", function), method, streams=streams)
        entered = {shape: None, _shape(streams=True, answers=handler.response_streaming): guarded}
        return type(handler)(**{**handler._asdict(), "request_streaming": True, **entered})

    def _coroutine(self, function: _Function, method: str, *, streams: bool) -> _Function:
        async def guarded(requests: object, context: Context) -> object:
            async with self._passage(self._call(method, context, requests if streams else None)) as call:
                call.answer = await function(call.request, context)
                return call.answer

        return guarded

    def _generator(self, function: _Generator, method: str, *, streams: bool) -> _Generator:
        async def guarded(requests: object, context: Context) -> AsyncGenerator[object, None]:
            async with (
                self._passage(self._call(method, context, requests if streams else None)) as call,
                contextlib.aclosing(function(call.request, context)) as answers,
            ):
                async for answer in answers:
                    yield answer

        return guarded

    def _call(self, method: str, context: Context, stream: object) -> EnteringCall:
        return EnteringCall(method, context, self._audit if stream is None else no_audit, stream)

    @contextlib.asynccontextmanager
    async def _passage(self, call: EnteringCall) -> AsyncIterator[EnteringCall]:
        async with self._guarded(call):
            traced = call.subject if rule_of(call.method).changes else {}
            with logs.bound(**call.subject), traces.span(call.method.removeprefix(API), traced, call.metadata):
                yield call

    @contextlib.asynccontextmanager
    async def _guarded(self, call: EnteringCall) -> AsyncIterator[EnteringCall]:
        try:
            call.peer = peer_identity(call.context)
            if call.peer is not None and self._connections.is_first(call.context.peer()):
                IDENTIFIED_CONNECTIONS.add("calls")
            async with self._turnstile.passing(call.peer):
                await call.take_request()
                self._guard(call.method, call.peer)
                yield call
        except grpc.aio.AbortError:
            raise
        except NotImplementedError as error:  # what a generated servicer does for a call that is not overridden
            call.ended(error)
            await call.context.abort(grpc.StatusCode.UNIMPLEMENTED, "This agent does not offer the call")
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not leave with its text
            with logs.bound(**call.subject):
                told = outward(error, call.method)
                call.ended(told)
                if isinstance(told, Unauthorised):
                    note_refusal(told, call.method, call.peer, call.context.peer())
                elif isinstance(told, TurnedAway):
                    note_turned_away(told, call.method, call.peer, call.context.peer())
            await call.context.abort(*to_status(told))
        except BaseException as error:  # the caller has gone, or this process ends
            call.ended(error)
            raise
        else:
            call.ended(None)


def _shape(*, streams: bool, answers: bool) -> str:
    """Return gRPC's name for a method whose request, or whose answer, is a stream, or is not."""
    return f"{'stream' if streams else 'unary'}_{'stream' if answers else 'unary'}"


def of_machine(error: MachineError) -> MigrationError:
    """Return what a failure of a machine's process means to whoever asked for something."""
    match error:
        case MachineGone():
            return Unreachable("machine-silent", str(error), "Look at the machine: viaduct machine show")
        case CutOff():
            return Stale("machine-cut-off", f"Machine obeys another controller: {error}", "Ask again")
        case _:
            return Refused("machine-refused", f"Machine's process refused: {error}", "Look at the logs in its folder")


def outward(error: Exception, method: str) -> MigrationError:
    """Return a failure as whoever made a call may see it; what is our own fault is logged here."""
    cause = innermost(error)
    if isinstance(cause, MigrationError):
        return cause
    if isinstance(cause, MachineError):
        return of_machine(cause)
    _log.error("call failed", method=method, exc_info=error)
    return InternalError("internal", "The agent failed in this call", "See its log")
