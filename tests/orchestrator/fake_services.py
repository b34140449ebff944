"""What the two agents of a host in memory serve."""
# ruff: noqa: N802 - methods are named as on the wire

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

from tests.orchestrator.fake_world import FakeAttempt, World
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import machine_pb2 as machine
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import DestinationServicer
from vm_migration.api.v1.machine_pb2_grpc import (
    HostServicer,
    MachinesServicer,
)
from vm_migration.api.v1.source_pb2_grpc import SourceServicer
from vm_migration.errors import InvalidInput, Refused, Stale
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State

_WAY = ("begun", "pre-copy", "stopping", "verifying", "releasing", "handing-over")


class FakeSource(SourceServicer):
    """The source's side of one host."""

    def __init__(self, world: World, host: str) -> None:
        self.world, self.host = world, host

    async def CheckOutgoing(
        self, request: source.CheckOutgoingRequest, context: object
    ) -> source.CheckOutgoingResponse:
        status = self.world.find(request.machine, self.host)
        self.world.measured_ms.append(request.measure_ms)
        return source.CheckOutgoingResponse(
            blockers=self.world.script.blockers,
            warnings=[types.Blocker(code="slow-link", message="The link is slow")],
            expected=types.Expected(total_ms=900, downtime_ms=120, rounds=2),
            profiles=self.world.script.profiles,
            requirements=types.Requirements(
                machine=status.machine,
                name=status.name,
                ram_bytes=status.ram_bytes,
                features=self.world.script.features_needed,
            ),
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
            self.world.begun_with[request.key.attempt] = request.policy.max_bandwidth_bytes_per_s
            self.world.attempts[request.key.attempt] = attempt
        return source.BeginResponse(
            key=attempt.report.key,
            secret_hash=b"h" * 32,
            source=self.host,
            requirements=types.Requirements(machine=status.machine, name=status.name, ram_bytes=status.ram_bytes),
        )

    async def CheckUpdate(self, request: source.CheckUpdateRequest, context: object) -> source.CheckUpdateResponse:
        self.world.calls.append(f"CheckUpdate {request.mode}")
        status = self.world.find(request.machine, self.host)
        script = self.world.script
        kept = script.blocked in ("", status.name)
        if kept and script.check_error is not None:
            raise script.check_error
        blockers = script.blockers if kept else []
        return source.CheckUpdateResponse(blockers=blockers, status=status)

    async def BeginUpdate(self, request: source.BeginUpdateRequest, context: object) -> source.BeginResponse:
        self.world.calls.append(f"BeginUpdate {self.host}")
        if self.world.script.begin_error is not None:
            raise self.world.script.begin_error
        status = self.world.machines[request.key.machine]
        attempt = self.world.attempts.get(request.key.attempt)
        if attempt is None:
            begin = source.BeginRequest(key=request.key, destination=self.host)
            attempt = FakeAttempt(self.world, begin, status.epoch + 1)
            self.world.attempts[request.key.attempt] = attempt
            attempt.task = asyncio.create_task(attempt.update())
        return source.BeginResponse(key=attempt.report.key, source=self.host)

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
        self.world.prepared.append(request)
        assert request.secret_hash
        self.world.incoming[request.key.attempt] = "PREPARED"
        if self.world.script.prepare_waits is not None:
            self.world.script.reached.set()
            await self.world.script.prepare_waits.wait()
        if self.world.script.prepare_error is not None:
            raise self.world.script.prepare_error
        return destination.PrepareResponse(
            ticket=b"t",
            control_address="127.0.0.1:1",
            bulk_address="127.0.0.1:2",
            prepare_ms=321.0,
            features=self.world.script.features_prepared,
        )

    async def OpenRound(self, request: destination.OpenRoundRequest, context: object) -> types.Empty:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def ListenForStream(
        self, request: destination.ListenForStreamRequest, context: object
    ) -> destination.ListenForStreamResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def Finish(self, request: destination.FinishRequest, context: object) -> destination.FinishResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

    async def Handoff(self, request: destination.HandoffRequest, context: object) -> destination.HandoffResponse:
        raise NotImplementedError  # nobody asks it where this fake stands

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
        raise NotImplementedError  # nobody asks it where this fake stands


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

    async def SuspendMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        return self.world.find(request.machine, self.host)

    async def WakeMachine(self, request: machine.MachineRequest, context: object) -> types.MachineStatus:
        return self.world.find(request.machine, self.host)

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
        if self.host in self.world.script.frozen:
            await self.world.script.thawed.wait()
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
        facts = types.HostFacts(
            host=self.host,
            version="0.1.0",
            boot_id="boot",
            memory_budget_bytes=64 << 30,
            memory_in_use_bytes=1 << 30,
            features=self.world.script.features,
        )
        facts.MergeFrom(self.world.script.facts.get(self.host, types.HostFacts()))
        return facts
