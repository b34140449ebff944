"""Source over gRPC: the orchestrator's hands on attempts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from source_agent.agent import SourceAgent
from source_agent.attempts import AnyAttempt
from source_agent.expectation import UNMEASURED, Estimate, Known, Sample, estimate, features_needed
from source_agent.holdings import Holding, machine_uuid
from source_agent.obstacles import ownership_obstacles, update_obstacles
from source_agent.outgoing_attempt import OutgoingAttempt, StartOrder
from source_agent.progress import Phase
from source_agent.report import attempt_report, blocker, machine_status, outgoing_report
from source_agent.retaken import retaken
from source_agent.sampling import Sampler
from source_agent.terms import Terms, terms_of, update_terms
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.api.v1.source_pb2_grpc import SourceServicer
from vm_migration.daemon.direct_offer import hindrance
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import InvalidInput, Refused
from vm_migration.handover.ownership import match
from vm_migration.handover.record import AttemptKey
from vm_migration.link.authorisation import may_measure
from vm_migration.link.identity import peer_identity
from vm_migration.link.served import Context
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.errors import MachineError
from vm_migration.transfer.convergence import DEVICE_BYTES_PER_S
from vm_migration.wire.attempt_key import attempt_key
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.process.control import Description, Observation

_REPORT_EVERY: Final = 1.0
_REPORT_APART: Final = 0.1
"""Seconds between two reports of one phase: each is whole, and its reader writes it down."""
_LOOK_SECONDS: Final = 0.5
"""For which a report waits for a machine's process; a frozen one is told as it was seen last."""
_CANCEL_SECONDS: Final = 10.0
"""For which a cancel waits for ABORTED; only a machine that stands still and does not answer can hold it up."""
_WORKING: Final = frozenset({Phase.BEGUN, Phase.PRE_COPY})
_UNMEASURED: Final = Observation(
    code=UNMEASURED,
    message="What the machine dirties could not be measured for you now; its guest's own figure is taken",
)


class SourceService(SourceServicer):
    """Serves the attempts of one agent."""

    def __init__(self, agent: SourceAgent, tls: TlsFiles | None = None) -> None:
        """`tls` names what this host's machines' processes show where they connect to other hosts' by themselves."""
        self._agent: Final = agent
        self._tls: Final = tls
        self._sampler: Final = Sampler(agent.holdings)

    async def CheckOutgoing(
        self, request: source_pb2.CheckOutgoingRequest, context: Context
    ) -> source_pb2.CheckOutgoingResponse:
        """Return every blocker and warning, and what is expected; nothing is changed.

        Who may not have a machine held for a moment gets what its guest says of itself, and a warning.
        """
        terms = terms_of(request.policy)
        holding = await self._agent.holdings.find(request.machine)
        found, blockers = None, self._ownership_blockers(holding, request.destination)
        warnings: list[Observation] = []
        if holding.description is not None:
            measures = request.measure_ms and may_measure(peer_identity(context))
            sample = await self._sampler.of(holding, request.measure_ms) if measures else None
            blockers.extend(holding.description.blockers)
            warnings.extend(holding.description.warnings)
            found = self._estimate(holding, holding.description, request.destination, terms, sample)
            blockers.extend(found.blockers)
            warnings.extend(found.warnings)
            told = {each.code for each in warnings}
            runs = holding.description.run_state == "running"
            if request.measure_ms and sample is None and runs and UNMEASURED not in told:
                warnings.append(_UNMEASURED)
        return source_pb2.CheckOutgoingResponse(
            blockers=[blocker(each) for each in blockers],
            warnings=[blocker(each) for each in warnings],
            expected=None if found is None else _expected(found, terms.profile),
            requirements=_requirements(holding, terms),
            status=machine_status(holding, self._agent.host),
            profiles=[] if found is None else [_expected(found, profile) for profile in found.profiles],
        )

    async def Begin(self, request: source_pb2.BeginRequest, context: Context) -> source_pb2.BeginResponse:
        """Open an attempt."""
        del context
        if not request.destination:
            raise InvalidInput("invalid-request", "Begin names no destination", "Name one")
        terms, key = terms_of(request.policy), attempt_key(request.key)
        if not self._agent.knows(key.attempt):
            self._require_movable(await self._agent.holdings.find(key.machine), request.destination, terms)
        attempt = await retaken(lambda: self._agent.begin(key, request.destination, terms))
        record = attempt.record
        holding = await self._agent.holdings.look(attempt.custody.place)
        found = None
        if holding.description is not None:
            found = self._estimate(holding, holding.description, request.destination, terms)
        return source_pb2.BeginResponse(
            key=attempt.key(),
            secret_hash=bytes.fromhex(record.secret_hash),
            source=self._agent.host,
            requirements=_requirements(holding, terms),
            expected=None if found is None else _expected(found, terms.profile),
        )

    async def CheckUpdate(
        self, request: source_pb2.CheckUpdateRequest, context: Context
    ) -> source_pb2.CheckUpdateResponse:
        """Return everything that keeps a machine in its process; nothing is changed."""
        del context
        holding = await self._agent.holdings.find(request.machine)
        found = await update_obstacles(self._agent.holdings, holding, request.mode)
        return source_pb2.CheckUpdateResponse(
            blockers=[blocker(each) for each in found], status=machine_status(holding, self._agent.host)
        )

    async def BeginUpdate(self, request: source_pb2.BeginUpdateRequest, context: Context) -> source_pb2.BeginResponse:
        """Have a machine go on in another process of this host; the agent then finishes or aborts alone."""
        del context
        key, host = attempt_key(request.key), self._agent.host
        if not self._agent.knows(key.attempt):
            holding = await self._agent.holdings.find(key.machine)
            for each in await update_obstacles(self._agent.holdings, holding, request.mode):
                hint = f"See all of it: viaduct update {holding.specification.name} --dry-run"
                raise Refused(each.code, each.message, hint)
        attempt = await retaken(lambda: self._agent.begin(key, host, update_terms(request.mode)))
        return source_pb2.BeginResponse(key=attempt.key(), source=host)

    async def Start(self, request: source_pb2.StartRequest, context: Context) -> source_pb2.AttemptReport:
        """Start the rounds."""
        del context
        attempt = await self._migrating(request.key)
        attempt.start(StartOrder(request.control_address, request.bulk_address, request.ticket))
        return await self._report(attempt)

    async def GetAttempt(self, request: source_pb2.AttemptRequest, context: Context) -> source_pb2.AttemptReport:
        """Return what an attempt has come to."""
        del context
        return await self._report(self._agent.attempt(attempt_key(request.key)))

    async def Watch(
        self, request: source_pb2.AttemptRequest, context: Context
    ) -> AsyncIterator[source_pb2.AttemptReport]:
        """Yield a report at each change of phase, within one at most ten a second and at least one, until the end."""
        del context
        attempt = self._agent.attempt(attempt_key(request.key))
        while True:
            shown = attempt.board.progress
            yield await self._report(attempt)
            if not attempt.open and attempt.board.progress is shown:
                return
            await attempt.board.news(shown, _REPORT_EVERY, _REPORT_APART)

    async def Cancel(self, request: source_pb2.AttemptRequest, context: Context) -> source_pb2.AttemptReport:
        """End an attempt before the point of no return; answers when ABORTED is durable."""
        del context
        attempt = await self._commanded(request.key)
        await attempt.cancelled(_CANCEL_SECONDS)
        return await self._report(attempt)

    async def Force(self, request: source_pb2.AttemptRequest, context: Context) -> source_pb2.AttemptReport:
        """Switch over at once."""
        del context
        attempt = await self._migrating(request.key)
        attempt.force()
        return await self._report(attempt)

    async def Tune(self, request: source_pb2.TuneRequest, context: Context) -> source_pb2.AttemptReport:
        """Change limits of a running attempt."""
        del context
        attempt = await self._commanded(request.key)
        if request.downtime_limit_ms or request.max_bandwidth_bytes_per_s:
            _migration(attempt).tune(
                downtime_limit_ms=request.downtime_limit_ms, max_bandwidth_bytes_per_s=request.max_bandwidth_bytes_per_s
            )
        return await self._report(attempt)

    async def DescribeOutgoing(self, request: source_pb2.AttemptRequest, context: Context) -> source_pb2.OutgoingReport:
        """Return what the journal says of an attempt."""
        del context
        return await self._outgoing(attempt_key(request.key), request.key.sequence)

    async def Recover(self, request: types_pb2.MachineName, context: Context) -> source_pb2.OutgoingReport:
        """Go on now with what an earlier life left of a machine; answers where its journal stands then."""
        del context
        machine = str(machine_uuid(request.machine))
        await retaken(lambda: self._agent.recovered(machine, request.files_gone))
        return await self._outgoing(AttemptKey(machine, "", 0, 0), 0)

    async def Take(self, request: types_pb2.TakeRequest, context: Context) -> source_pb2.OutgoingReport:
        """Take a released machine back, on an operator's word."""
        del context
        key = attempt_key(request.key)
        off = ", ".join((request.fenced, *request.also_off))
        await self._agent.taken(key, request.highest_seen, f"{request.reason} (off, by the operator's word: {off})")
        return await self._outgoing(key, 0)

    async def _outgoing(self, key: AttemptKey, sequence: int) -> source_pb2.OutgoingReport:
        record = await self._agent.journalled(key, sequence)
        lives = None if record is None else self._agent.holdings.hypervisor.instance_lives(record.instance)
        return outgoing_report(record, key.attempt or (record and record.attempt) or "", alive=bool(lives))

    async def _migrating(self, message: types_pb2.AttemptKey) -> OutgoingAttempt:
        return _migration(await self._commanded(message))

    async def _commanded(self, message: types_pb2.AttemptKey) -> AnyAttempt:
        """Return the attempt that a mutating call names; the call must match the journal, and its term counts."""
        key = attempt_key(message)
        attempt = self._agent.attempt(key)
        await attempt.custody.write(lambda record: match(record, key))
        return attempt

    async def _report(self, attempt: AnyAttempt) -> source_pb2.AttemptReport:
        if attempt.board.progress.phase in _WORKING:  # while it stands still, nobody but the attempt asks it anything
            with contextlib.suppress(MachineError, TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    attempt.described = await attempt.custody.port.describe()
        return attempt_report(
            attempt.record,
            attempt.board.progress,
            attempt.described,
            attempt.terms,
            host=self._agent.host,
            name=self._agent.name_of(attempt.attempt),
        )

    def _estimate(
        self,
        holding: Holding,
        description: Description,
        destination: str,
        terms: Terms,
        sample: Sample | None = None,
    ) -> Estimate:
        record = self._agent.track_record_of(holding.specification.kind)
        known = Known(
            hash_bytes_per_s=self._agent.hash_bytes_per_s,
            hashed_bytes_per_s=record.hashed_bytes_per_s(destination),
            link_bytes_per_s=record.link_bytes_per_s(destination),
            fixed_ms=record.fixed_ms(destination),
            around_ms=record.around_ms(destination),
            round_ms=record.round_ms(destination),
            device_bytes_per_s=record.device_bytes_per_s(destination) or DEVICE_BYTES_PER_S,
            pages_per_wire=record.pages_per_wire(),
            packed_bytes_per_s=record.packed_bytes_per_s(destination),
            sample=sample,
            kept_from_direct=hindrance(self._agent.host, self._tls) if features_needed(description, terms) else None,
        )
        return estimate(holding.specification, description, terms, known)

    def _require_movable(self, holding: Holding, destination: str, terms: Terms) -> None:
        """Refuse what the machine itself refuses, whoever asks: preflight is a service, this is the rule."""
        description = holding.description
        if description is None:
            return
        found = self._estimate(holding, description, destination, terms)
        for each in (*description.blockers, *found.blockers):
            raise Refused(each.code, each.message, f"See all of it: viaduct preflight {holding.specification.name}")

    def _ownership_blockers(self, holding: Holding, destination: str) -> list[Observation]:
        found = ownership_obstacles(holding)
        if destination == self._agent.host:
            found.insert(0, Observation(code="same-host", message=f"Machine is on {destination} already"))
        return found


def _migration(attempt: AnyAttempt) -> OutgoingAttempt:
    if isinstance(attempt, OutgoingAttempt):
        return attempt
    text = f"Attempt {attempt.attempt} is an update: it sends no memory, and has no rounds"
    raise Refused("not-in-rounds", text, "Wait for its end, or cancel it")


def _requirements(holding: Holding, terms: Terms) -> types_pb2.Requirements:
    return types_pb2.Requirements(
        machine=holding.record.machine,
        name=holding.specification.name,
        specification=holding.specification.to_json(),
        ram_bytes=holding.specification.memory.size,
        version=VERSION,
        state_format=STATE_FORMAT,
        features=() if holding.description is None else features_needed(holding.description, terms),
    )


def _expected(found: Estimate, profile: str) -> types_pb2.Expected:
    prediction = found.profiles[profile]
    return types_pb2.Expected(
        total_ms=prediction.total_ms.likely,
        prepare_ms=prediction.prepare_ms,
        downtime_ms=prediction.downtime_ms.likely,
        rounds=round(prediction.rounds.likely),
        total_low_ms=prediction.total_ms.low,
        total_high_ms=prediction.total_ms.high,
        downtime_low_ms=prediction.downtime_ms.low,
        downtime_high_ms=prediction.downtime_ms.high,
        converges=prediction.converges,
        profile=profile,
        link_bytes_per_s=found.link_bytes_per_s,
        dirty_bytes_per_s=found.dirty_bytes_per_s,
    )
