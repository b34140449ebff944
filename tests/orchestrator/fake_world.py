"""What several hosts in memory know together, and how an attempt among them goes: as it is scripted."""

import asyncio
import uuid
from dataclasses import dataclass, field

from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.errors import InvalidInput, MigrationError

_WAY = ("begun", "pre-copy", "stopping", "verifying", "releasing", "handing-over")
UPDATE_WAY = ("begun", "starting", "switching", "releasing", "resuming")


@dataclass
class Script:
    """How the agents behave; a test changes it before or while an attempt runs."""

    blockers: list[types.Blocker] = field(default_factory=list)
    blocked: str = ""  # the machine whose update they keep back; empty: every one's
    profiles: list[types.Expected] = field(  # what it would be under each; a source of 0.1.0 tells none
        default_factory=lambda: [types.Expected(total_ms=900, downtime_ms=120, rounds=2, profile="balanced")]
    )
    incoming_blockers: list[types.Blocker] = field(default_factory=list)
    features_needed: list[str] = field(default_factory=list)  # what sources say that their machines need
    features: list[str] = field(default_factory=list)  # what destinations say that they offer
    features_prepared: list[str] = field(default_factory=list)  # and what they say of it when they prepare
    facts: dict[str, types.HostFacts] = field(default_factory=dict)  # what the agents of a host say beside, or instead
    frozen: set[str] = field(default_factory=set)  # hosts that tell of their journals once `thawed` is set
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    check_error: MigrationError | None = None  # by which they answer whoever asks about the update of what is `blocked`
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
    prepared: list[destination.PrepareRequest] = field(default_factory=list)
    measured_ms: list[int] = field(default_factory=list)  # for how long whoever asked wanted it measured
    incoming: dict[str, str] = field(default_factory=dict)  # attempt -> the destination's state
    outgoing: dict[str, source.OutgoingReport] = field(default_factory=dict)  # what the source's journal says
    terms: dict[str, int] = field(default_factory=dict)
    begun_with: dict[str, int] = field(default_factory=dict)  # attempt -> the bandwidth that it began with

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
            report.cancel_allowed = not outcome and phase not in {"releasing", "resuming", "handing-over"}
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

    async def update(self) -> None:
        """Go the whole way of an update, as the script says."""
        script = self.world.script
        for phase in UPDATE_WAY:
            await self.become(phase)
            if phase == script.hold_at:
                script.reached.set()
                await script.go.wait()
            if phase == "switching" and script.ends_with != "completed":
                await self._fail(script.ends_with)
                return
        report = self.report
        report.downtime.CopyFrom(
            types.Downtime(downtime_ms=9, device_state_ms=5, verify_ms=1, handoff_ms=1, resume_ms=2)
        )
        report.total_ms = 812.5
        self.world.machines[report.key.machine].epoch = report.owned_epoch = report.key.epoch + 1
        await self.become("completed", outcome="completed", state="RECLAIMED")

    async def _fail(self, how: str) -> None:
        code = {"failed": "verify-mismatch", "lost": "process-gone"}[how]
        self.world.machines[self.report.key.machine].epoch = self.report.key.epoch  # an attempt burns its epoch
        self.report.error.CopyFrom(types.Failure(code=code, message="It went wrong", hint="Try again"))
        phase, state = ("lost", "LOST") if how == "lost" else ("aborted", "ABORTED")
        await self.become(phase, outcome=how, state=state)
