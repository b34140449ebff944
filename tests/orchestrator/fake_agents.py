"""Agents of several hosts in memory, behind real gRPC servers on loopback; what an attempt does is scripted."""
# ruff: noqa: N802 - methods are named as on the wire

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from orchestrator.agents import HostAddresses
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import machine_pb2 as machine
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer, add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import (
    HostServicer,
    MachinesServicer,
    add_HostServicer_to_server,
    add_MachinesServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import SourceServicer, add_SourceServicer_to_server
from vm_migration.errors import InvalidInput, MigrationError, Refused, Stale
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State
from vm_migration.link.server import AgentServer, Service

_API = "vm_migration.api.v1"
_WAY = ("begun", "pre-copy", "stopping", "verifying", "releasing", "handing-over")


@dataclass
class Script:
    """How the agents behave; a test changes it before or while an attempt runs."""

    blockers: list[types.Blocker] = field(default_factory=list)
    incoming_blockers: list[types.Blocker] = field(default_factory=list)
    begin_error: MigrationError | None = None
    prepare_error: MigrationError | None = None
    prepare_waits: asyncio.Event | None = None  # Prepare answers once it is set
    cancel_waits: asyncio.Event | None = None  # Cancel answers once it is set
    hold_at: str = ""  # the phase in which an attempt waits for `go`
    go: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)  # set when it waits there
    ends_with: str = "completed"  # completed | failed | lost
    failures: int = 0  # so many attempts fail before it ends so


@dataclass
class World:
    """What all hosts know together."""

    script: Script = field(default_factory=Script)
    machines: dict[str, types.MachineStatus] = field(default_factory=dict)
    attempts: dict[str, "FakeAttempt"] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    incoming: dict[str, str] = field(default_factory=dict)  # attempt -> the destination's state
    outgoing: dict[str, source.OutgoingReport] = field(default_factory=dict)  # what the source's journal says
    terms: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, host: str) -> str:
        """Put a machine on a host."""
        identity = str(uuid.uuid4())
        self.machines[identity] = types.MachineStatus(
            machine=identity,
            name=name,
            host=host,
            state="OWNER",
            epoch=1,
            run_state="running",
            ram_bytes=1 << 30,
            guest=types.GuestReport(jobs_done=10),
            memory=types.MemorySource(kind="mixture", sha256="00"),
        )
        return identity

    def find(self, name: str, host: str) -> types.MachineStatus:
        """Return a machine of a host by name or UUID."""
        for one in self.machines.values():
            if one.host == host and name in {one.machine, one.name}:
                return one
        raise InvalidInput("unknown-machine", f"No machine {name} on {host}", "See viaduct machine list")


class FakeAttempt:
    """One attempt at its source."""

    def __init__(self, world: World, request: source.BeginRequest, epoch: int) -> None:
        self.world = world
        status = world.machines[request.key.machine]
        key = types.AttemptKey(machine=status.machine, attempt=request.key.attempt, epoch=epoch, term=request.key.term)
        self.report = source.AttemptReport(
            key=key,
            machine_name=status.name,
            source=status.host,
            destination=request.destination,
            state="OUTGOING",
            phase="begun",
            ram_bytes=status.ram_bytes,
            cancel_allowed=True,
            record='{"epoch": 2}',
            guest=types.GuestReport(jobs_done=20, dirty_bytes_per_s=1e8, dma_bytes_per_s=5e7),
            memory=status.memory,
            expected=types.Expected(total_ms=900, downtime_ms=120, rounds=2),
        )
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def become(self, phase: str, *, outcome: str = "", state: str = "OUTGOING") -> None:
        """Go to a phase and tell the watchers."""
        async with self.changed:
            report = self.report
            report.phase, report.outcome, report.state = phase, outcome, state
            report.sequence += 1
            report.percent = 100 if outcome else 50
            report.cancel_allowed = not outcome and phase not in {"releasing", "handing-over"}
            if phase == "pre-copy":
                report.rounds.append(
                    types.Round(round=1, dirty_pages=262144, sent_pages=262000, zero_pages=144, ms=5.0)
                )
            self.changed.notify_all()

    async def run(self) -> None:
        """Go the whole way, as the script says."""
        script = self.world.script
        for phase in _WAY:
            await self.become(phase)
            if phase == script.hold_at:
                script.reached.set()
                await script.go.wait()
            if phase == "pre-copy" and script.failures:
                script.failures -= 1
                await self._fail("failed")
                return
            if phase == "pre-copy" and script.ends_with != "completed":
                await self._fail(script.ends_with)
                return
        report = self.report
        report.downtime.CopyFrom(types.Downtime(downtime_ms=21, pause_ms=1, last_round_ms=9, verify_ms=5, resume_ms=6))
        report.verified_by, report.pages_verified, report.total_ms = "full", 262144, 1234.5
        machine_status = self.world.machines[report.key.machine]
        machine_status.host, machine_status.epoch = report.destination, report.key.epoch
        await self.become("completed", outcome="completed", state="RETIRED")

    async def _fail(self, how: str) -> None:
        code = {"failed": "verify-mismatch", "lost": "process-gone"}[how]
        self.world.machines[self.report.key.machine].epoch = self.report.key.epoch  # an attempt burns its epoch
        self.report.error.CopyFrom(types.Failure(code=code, message="It went wrong", hint="Try again"))
        phase, state = ("lost", "LOST") if how == "lost" else ("aborted", "ABORTED")
        await self.become(phase, outcome=how, state=state)


class FakeSource(SourceServicer):
    """The source's side of one host."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host

    async def CheckOutgoing(
        self, request: source.CheckOutgoingRequest, context: object
    ) -> source.CheckOutgoingResponse:
        status = self.world.find(request.machine, self.host)
        return source.CheckOutgoingResponse(
            blockers=self.world.script.blockers,
            warnings=[types.Blocker(code="slow-link", message="The link is slow")],
            expected=types.Expected(total_ms=900, downtime_ms=120, rounds=2),
            requirements=types.Requirements(machine=status.machine, name=status.name, ram_bytes=status.ram_bytes),
            status=status,
        )

    async def Begin(self, request: source.BeginRequest, context: object) -> source.BeginResponse:
        self.world.calls.append(f"Begin {self.host}")
        if self.world.script.begin_error is not None:
            raise self.world.script.begin_error
        status = self.world.machines[request.key.machine]
        attempt = self.world.attempts.get(request.key.attempt)
        if attempt is None:
            attempt = FakeAttempt(self.world, request, status.epoch + 1)
            self.world.attempts[request.key.attempt] = attempt
        return source.BeginResponse(
            key=attempt.report.key,
            secret_hash=b"h" * 32,
            source=self.host,
            requirements=types.Requirements(machine=status.machine, name=status.name, ram_bytes=status.ram_bytes),
        )

    async def Start(self, request: source.StartRequest, context: object) -> source.AttemptReport:
        self.world.calls.append(f"Start {request.control_address}")
        attempt = self._commanded(request.key)
        if attempt.task is None:
            attempt.task = asyncio.create_task(attempt.run())
        return attempt.report

    async def GetAttempt(self, request: source.AttemptRequest, context: object) -> source.AttemptReport:
        return self._known(request.key).report

    async def Watch(
        self, request: source.AttemptRequest, context: object
    ) -> AsyncGenerator[source.AttemptReport, None]:
        attempt = self._known(request.key)
        while True:
            async with attempt.changed:
                yield attempt.report
                if attempt.report.outcome:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await attempt.changed.wait()

    async def Cancel(self, request: source.AttemptRequest, context: object) -> source.AttemptReport:
        self.world.calls.append("Cancel")
        attempt = self._commanded(request.key)
        if self.world.script.cancel_waits is not None:
            await self.world.script.cancel_waits.wait()
        if not attempt.report.cancel_allowed and not attempt.report.outcome:
            raise Refused("past-return", "The attempt is released", "Wait for its end")
        if not attempt.report.outcome:
            if attempt.task is not None:
                attempt.task.cancel()
            await attempt.become("aborted", outcome="cancelled", state="ABORTED")
        return attempt.report

    async def Force(self, request: source.AttemptRequest, context: object) -> source.AttemptReport:
        self.world.calls.append("Force")
        attempt = self._commanded(request.key)
        if attempt.report.phase != "pre-copy":
            raise Refused("not-in-rounds", f"Attempt is {attempt.report.phase}", "Nothing to force")
        self.world.script.go.set()
        return attempt.report

    async def DescribeOutgoing(self, request: source.AttemptRequest, context: object) -> source.OutgoingReport:
        return self.world.outgoing.get(request.key.attempt, source.OutgoingReport())

    async def Recover(self, request: types.MachineName, context: object) -> source.OutgoingReport:
        raise AssertionError("Not asked here")

    async def Take(self, request: types.TakeRequest, context: object) -> source.OutgoingReport:
        raise AssertionError("Not asked here")

    async def Tune(self, request: source.TuneRequest, context: object) -> source.AttemptReport:
        attempt = self._commanded(request.key)
        if request.downtime_limit_ms or request.max_bandwidth_bytes_per_s:
            self.world.calls.append(f"Tune {request.downtime_limit_ms} {request.max_bandwidth_bytes_per_s}")
        return attempt.report

    def _known(self, key: types.AttemptKey) -> FakeAttempt:
        if key.attempt not in self.world.attempts:
            raise InvalidInput("unknown-attempt", f"No attempt {key.attempt}", "")
        attempt = self.world.attempts[key.attempt]
        assert key.epoch == attempt.report.key.epoch, (key, attempt.report.key)
        return attempt

    def _commanded(self, key: types.AttemptKey) -> FakeAttempt:
        attempt, known = self._known(key), self.world.terms.get(key.attempt, 0)
        if key.term < known:
            raise Stale("stale-term", f"Term {key.term} no longer drives, {known} does", "")
        self.world.terms[key.attempt] = key.term
        return attempt


class FakeDestination(DestinationServicer):
    """The destination's side of one host."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host

    async def CheckIncoming(
        self, request: destination.CheckIncomingRequest, context: object
    ) -> destination.CheckIncomingResponse:
        blockers = [*self.world.script.incoming_blockers]
        return destination.CheckIncomingResponse(blockers=blockers, expected_prepare_ms=300)

    async def Prepare(self, request: destination.PrepareRequest, context: object) -> destination.PrepareResponse:
        self.world.calls.append(f"Prepare {self.host}")
        assert request.secret_hash
        self.world.incoming[request.key.attempt] = "PREPARED"
        if self.world.script.prepare_waits is not None:
            self.world.script.reached.set()
            await self.world.script.prepare_waits.wait()
        if self.world.script.prepare_error is not None:
            raise self.world.script.prepare_error
        return destination.PrepareResponse(
            ticket=b"t", control_address="127.0.0.1:1", bulk_address="127.0.0.1:2", prepare_ms=321.0
        )

    async def OpenRound(self, request: destination.OpenRoundRequest, context: object) -> types.Empty:
        raise NotImplementedError

    async def Finish(self, request: destination.FinishRequest, context: object) -> destination.FinishResponse:
        raise NotImplementedError

    async def Handoff(self, request: destination.HandoffRequest, context: object) -> destination.HandoffResponse:
        raise NotImplementedError

    async def DescribeIncoming(
        self, request: destination.DescribeIncomingRequest, context: object
    ) -> destination.IncomingReport:
        state = self.world.incoming.get(request.key.attempt, "")
        return destination.IncomingReport(state=state, highest_epoch=request.key.epoch if state else 0)

    async def Discard(self, request: destination.DiscardRequest, context: object) -> destination.IncomingReport:
        self.world.calls.append(f"Discard {request.proof_state}")
        assert json.loads(request.proof_record)
        self.world.incoming[request.key.attempt] = "DISCARDED"
        return destination.IncomingReport(state="DISCARDED")

    async def Recover(self, request: types.MachineName, context: object) -> destination.IncomingReport:
        raise AssertionError("Not asked here")

    async def Take(self, request: types.TakeRequest, context: object) -> destination.IncomingReport:
        raise AssertionError("Not asked here")

    async def NoteRetired(self, request: destination.NoteRetiredRequest, context: object) -> destination.IncomingReport:
        raise NotImplementedError


class FakeMachines(MachinesServicer):
    """The machines of one host."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host

    async def CreateMachine(self, request: machine.CreateMachineRequest, context: object) -> types.MachineStatus:
        name = json.loads(request.specification)["name"]
        return self.world.machines[self.world.add(name, self.host)]

    async def ListMachines(self, request: types.Empty, context: object) -> machine.ListMachinesResponse:
        return machine.ListMachinesResponse(machines=[m for m in self.world.machines.values() if m.host == self.host])

    async def GetMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        return self.world.find(request.machine, self.host)

    async def PauseMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        return self._become(request.machine, "paused")

    async def ResumeMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        return self._become(request.machine, "running")

    async def DestroyMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        status = self._become(request.machine, "gone")
        del self.world.machines[status.machine]
        return status

    async def MeasureDirtyRate(self, request: machine.MeasureDirtyRateRequest, context: object) -> machine.DirtyRate:
        return machine.DirtyRate(
            status=self.world.find(request.machine, self.host),
            window_ms=request.window_ms,
            cpu_pages=300,
            dma_pages=200,
            pages=450,
            exact=True,
        )

    def _become(self, name: str, run_state: str) -> types.MachineStatus:
        status = self.world.find(name, self.host)
        status.run_state = run_state
        return status


class FakeHost(HostServicer):
    """What one host is."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host

    async def ListCustodies(self, request: types.Empty, context: object) -> types.CustodyReport:
        custodies = []
        for attempt in self.world.attempts.values():
            report, key = attempt.report, attempt.report.key
            states = {report.source: report.state, report.destination: self.world.incoming.get(key.attempt, "")}
            if states.get(self.host):
                peer = report.destination if self.host == report.source else report.source
                record = Record(
                    machine=key.machine,
                    state=State(states[self.host]),
                    attempt=key.attempt,
                    epoch=key.epoch,
                    term=key.term,
                    peer=peer,
                )
                text = encode(record).decode()
                custodies.append(types.MachineCustody(machine=key.machine, name=report.machine_name, record=text))
        return types.CustodyReport(host=self.host, custodies=custodies)

    async def DescribeHost(self, request: types.Empty, context: object) -> types.HostFacts:
        return types.HostFacts(
            host=self.host, version="0.1.0", boot_id="boot", memory_budget_bytes=64 << 30, memory_in_use_bytes=1 << 30
        )


def _source_services(world: World, host: str) -> list[Service]:
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, FakeHost(world, host))),
        Service(f"{_API}.Machines", partial(add_MachinesServicer_to_server, FakeMachines(world, host))),
        Service(f"{_API}.Source", partial(add_SourceServicer_to_server, FakeSource(world, host))),
    ]


def _dest_services(world: World, host: str) -> list[Service]:
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, FakeHost(world, host))),
        Service(f"{_API}.Destination", partial(add_DestinationServicer_to_server, FakeDestination(world, host))),
    ]


class FakeSite:
    """Several hosts that share a world, each with two agents on loopback."""

    def __init__(self) -> None:
        self.world = World()
        self.addresses: dict[str, HostAddresses] = {}
        self._stacks: dict[str, contextlib.AsyncExitStack] = {}

    async def serve(self, host: str) -> None:
        """Start both agents of a host."""
        stack = self._stacks[host] = contextlib.AsyncExitStack()
        source_agent, dest_agent = [
            await stack.enter_async_context(AgentServer("127.0.0.1:0", None, services, grace=0.0))
            for services in (_source_services(self.world, host), _dest_services(self.world, host))
        ]
        self.addresses[host] = HostAddresses(source_agent.address, dest_agent.address)

    async def stop(self, host: str) -> None:
        """Stop both agents of a host; its addresses stay configured."""
        await self._stacks.pop(host).aclose()

    async def close(self) -> None:
        """Stop everything."""
        for attempt in self.world.attempts.values():
            if attempt.task is not None:
                attempt.task.cancel()
        for host in list(self._stacks):
            await self.stop(host)


@contextlib.asynccontextmanager
async def fake_site(*hosts: str) -> AsyncIterator[FakeSite]:
    """Serve some hosts."""
    site = FakeSite()
    try:
        for host in hosts:
            await site.serve(host)
        yield site
    finally:
        await site.close()
