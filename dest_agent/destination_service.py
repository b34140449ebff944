"""Destination and Bulk over gRPC."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio
import msgspec

from dest_agent.admission import streams_in
from dest_agent.agent import DestAgent
from dest_agent.answering import answered
from dest_agent.direct_listener import DirectListener
from dest_agent.letting_in import let_in
from dest_agent.prepare_times import PrepareTime, PrepareTimes
from dest_agent.stream_door import StreamDoor, shown_by
from dest_agent.touching import TouchTrial
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer
from vm_migration.daemon.direct_offer import features_offered, hindrance
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, TRANSPORT_NOT_OFFERED
from vm_migration.errors import InvalidInput, Refused, Unauthorised
from vm_migration.handover.record import AttemptKey, decode
from vm_migration.link.authorisation import may_measure
from vm_migration.link.identity import Role, peer_identity
from vm_migration.link.served import Context
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.windows import require_measurable
from vm_migration.telemetry import logs
from vm_migration.wire.ack import encode_ack
from vm_migration.wire.attempt_key import attempt_key
from vmm.process.control import Observation

BULK_SERVICE: Final = "vm_migration.api.v1.Bulk"
_log: Final = logs.get(__name__)


class DestinationService(DestinationServicer):
    """Serves the arrivals of one agent; `control` and `bulk` are the addresses that sources are told.

    `direct` tells where direct streams are taken in, where any are, and `door` opens ports for those of machines, which
    show what `tls` names.
    """

    def __init__(
        self,
        agent: DestAgent,
        control: str,
        bulk: str,
        direct: DirectListener | None = None,
        door: StreamDoor | None = None,
        *,
        tls: TlsFiles | None = None,
    ) -> None:
        self._agent: Final = agent
        self._control: Final = control
        self._bulk: Final = bulk
        self._times: Final = PrepareTimes()
        self._trial: Final = TouchTrial(time.monotonic_ns)  # on another thread, which has no loop
        self._direct: Final = direct
        self._door: Final = door
        self._tls: Final = tls

    async def CheckIncoming(
        self, request: destination_pb2.CheckIncomingRequest, context: Context
    ) -> destination_pb2.CheckIncomingResponse:
        """Return everything that speaks against taking the machine in, and how long Prepare would take.

        Who may have a host measure has memory touched for a moment; others get what it took of late.
        """
        measures = request.measure_ms and may_measure(peer_identity(context))
        touch = await self._tried(request) if measures else None
        found = [*self._agent.admission.check(request.requirements), *self._unable(request.requirements)]
        return destination_pb2.CheckIncomingResponse(
            blockers=[types_pb2.Blocker(code=each.code, message=each.message) for each in found],
            expected_prepare_ms=self._times.expected_ms(request.requirements.ram_bytes, touch),
        )

    async def Prepare(
        self, request: destination_pb2.PrepareRequest, context: Context
    ) -> destination_pb2.PrepareResponse:
        """Make ready for an attempt."""
        del context
        streams_in(request.streams)  # first, with all that is refused: nothing has been done by then
        for each in self._unable(request.requirements):
            hint = f"See all of it: viaduct preflight {request.requirements.name} --to {self._agent.host}"
            raise Refused(each.code, each.message, hint)
        own_port = DIRECT_MACHINE_STREAM in request.requirements.features
        bulk = await self._bulk_address(request.transport, own_port=own_port)
        attempt = await self._agent.prepare(attempt_key(request.key), request)
        touch_ms = attempt.prepare_ms - attempt.launch_ms
        self._times.note(request.key.attempt, PrepareTime(request.requirements.ram_bytes, attempt.launch_ms, touch_ms))
        _log.info("prepared", source=request.source, prepare_ms=round(attempt.prepare_ms, 3))
        return destination_pb2.PrepareResponse(
            ticket=attempt.ticket,
            control_address=self._control,
            bulk_address=bulk,
            prepare_ms=attempt.prepare_ms,
            features=features_offered(self._tls),
        )

    def _unable(self, requirements: types_pb2.Requirements) -> tuple[Observation, ...]:
        """Return what keeps a machine's process here from taking its stream in by itself, where it is to."""
        wanted = DIRECT_MACHINE_STREAM in requirements.features
        found = hindrance(self._agent.host, self._tls) if wanted else None
        return () if found is None else (found,)

    async def _tried(self, request: destination_pb2.CheckIncomingRequest) -> float | None:
        require_measurable(request.measure_ms)
        ram_bytes = request.requirements.ram_bytes
        return await self._trial.ms_per_byte(ram_bytes, self._agent.admission.memory_left, request.measure_ms)

    async def _bulk_address(self, transport: str, *, own_port: bool) -> str:
        """Return where streams come in; a machine whose process has a port of its own needs no other one open."""
        if transport in ("", "grpc"):
            return self._bulk
        if transport not in ("direct", "sealed") or self._direct is None:
            text = f"Bulk streams cannot travel by {transport[:80]!r} to this host"
            raise Refused(TRANSPORT_NOT_OFFERED, text, "Use --transport grpc")
        return self._bulk if own_port else await self._direct.address()

    async def OpenRound(self, request: destination_pb2.OpenRoundRequest, context: Context) -> types_pb2.Empty:
        """Take a round's announcement from the source."""
        key = attempt_key(request.key)
        attempt = self._agent.arriving(key)
        attempt.require_source(_name(context))
        await self._agent.hear(key, request.key.sequence)
        self._agent.bulk_target(key.attempt).open_round(request.round, request.bitmap)
        return types_pb2.Empty()

    async def ListenForStream(
        self, request: destination_pb2.ListenForStreamRequest, context: Context
    ) -> destination_pb2.ListenForStreamResponse:
        """Have a machine's process listen for its source's, and for nobody else."""
        key = attempt_key(request.key)
        self._agent.arriving(key).require_source(_name(context))
        await self._agent.hear(key, request.key.sequence)
        arrival = self._agent.stream_target(key.attempt)
        arrival.require_ticket(request.ticket)
        if self._door is None:
            text = "Machines' processes take no streams in directly here"
            raise Refused(TRANSPORT_NOT_OFFERED, text, "Use --transport grpc")
        answer = await self._door.open(arrival, shown_by(context.auth_context()), request.streams)
        _log.info("listens for the machine's own stream", address=answer.address)
        return answer

    async def Finish(self, request: destination_pb2.FinishRequest, context: Context) -> destination_pb2.FinishResponse:
        """Load and verify, for the source."""
        key = attempt_key(request.key)
        self._agent.arriving(key).require_source(_name(context))
        await self._agent.hear(key, request.key.sequence)
        finished = await self._agent.finish(key, request)
        result = finished.result
        _log.info("memory loaded", ready=finished.ready, verify_ms=round(finished.verify_ms, 3))
        return destination_pb2.FinishResponse(
            pause=finished.pause,
            ready=finished.ready,
            pages_verified=0 if result is None else result.pages_verified,
            pages_mismatched=0 if result is None else result.pages_mismatched + result.pages_unstated,
            mismatched_pages=() if result is None else result.mismatched,
            load_ms=finished.load_ms,
            verify_ms=finished.verify_ms,
        )

    async def Handoff(
        self, request: destination_pb2.HandoffRequest, context: Context
    ) -> destination_pb2.HandoffResponse:
        """Activate on the secret."""
        key = attempt_key(request.key)
        await self._agent.hear(key, request.key.sequence, _host(context))
        answer = await self._agent.hand_off(key, request.pause, request.secret)
        _log.info("handed off", state=answer.state)
        return answer

    async def DescribeIncoming(
        self, request: destination_pb2.DescribeIncomingRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        """Return what the journal says; a source that asks is there."""
        return await self._agent.describe(attempt_key(request.key), _host(context))

    async def Discard(
        self, request: destination_pb2.DiscardRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        """Give an arrival up on the source's proof."""
        key = attempt_key(request.key)
        try:
            proof = decode(request.proof_record.encode())
        except msgspec.DecodeError as error:
            raise InvalidInput(
                "bad-proof", f"Proof is no journal record: {error}", "Send the source's record"
            ) from error
        await self._agent.hear(key, request.key.sequence, _host(context))
        record = await self._agent.discard(key, proof)
        _log.info("given up on the source's proof", state=record.state.value)
        return self._agent.report(record, key)

    async def NoteRetired(
        self, request: destination_pb2.NoteRetiredRequest, context: Context
    ) -> destination_pb2.IncomingReport:
        """Record that the former source retired its copy, or that somebody vouches for it."""
        identity = peer_identity(context)
        if request.fenced_by and identity is not None and identity.role is not Role.OPERATOR:
            raise Unauthorised(
                "role", f"{identity.uri} cannot vouch that a host is off", "viaduct recover --fenced HOST"
            )
        key = attempt_key(request.key)
        await self._agent.hear(key, request.key.sequence, _host(context))
        return self._agent.report(await self._agent.note_retired(key, fenced_by=request.fenced_by), key)

    async def Recover(self, request: types_pb2.MachineName, context: Context) -> destination_pb2.IncomingReport:
        """Go on now with what an earlier life left of a machine."""
        del context
        record = await self._agent.go_on(request.machine)
        return self._agent.report(record, AttemptKey(record.machine, "", 0, 0))

    async def Take(self, request: types_pb2.TakeRequest, context: Context) -> destination_pb2.IncomingReport:
        """Start a whole image without its source's release, on an operator's word."""
        del context
        record = await self._agent.take(request)
        return self._agent.report(record, AttemptKey(record.machine, "", 0, 0))

    async def send(self, messages: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        """Take one bulk stream's frames, and answer them."""
        told = _metadata(context)
        stream, ticket = _ordinal(_text(told.get("viaduct-stream"))), told.get("viaduct-ticket-bin", b"")
        wanted = _text(told.get("viaduct-attempt"))
        attempt = let_in(self._agent, wanted, _name(context), ticket if isinstance(ticket, bytes) else b"", stream)
        tells = _text(told.get("viaduct-progress")) == "1"
        async with aclosing(answered(attempt, messages, stream, tells=tells)) as answers:
            async for answer in answers:
                yield encode_ack(answer)


def add_bulk(service: DestinationService, server: grpc.aio.Server) -> None:
    """Serve the raw bulk method: identity serializers, because a message is a frame."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(service.send)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(BULK_SERVICE, {"Send": handler}),))


def _metadata(context: Context) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _name(context: Context) -> str | None:
    identity = peer_identity(context)
    return None if identity is None else identity.name


def _host(context: Context) -> str | None:
    """Return which host calls; None where it is a driver, or nobody in particular on loopback."""
    identity = peer_identity(context)
    return identity.name if identity is not None and identity.role is Role.HOST else None


def _ordinal(text: str) -> int:
    if not text.isdecimal():
        raise Unauthorised("no-stream", "Bulk stream names no ordinal")
    return int(text)


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""
