"""Hosts whose journals a test writes, behind real gRPC servers on loopback: for what looks at journals and recovers.

Records are made with the agents' own functions, so that no test speaks of a record that no agent could have written.
"""
# ruff: noqa: N802 - methods are named as on the wire

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from orchestrator.agents import HostAddresses
from tests.orchestrator.fake_services import FakeDestination, FakeHost, FakeSource
from tests.orchestrator.fake_world import World
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import MigrationError, Refused
from vm_migration.handover import arrival, departure, ownership
from vm_migration.handover.evidence import InstanceGone, Process, ProcessAnswer, SideView, view
from vm_migration.handover.headings import name_in
from vm_migration.handover.record import AttemptKey, Record, decode, encode
from vm_migration.handover.states import ARRIVING, OWNING, State
from vm_migration.link.server import AgentServer, Service

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
ATTEMPT = "7f3c1f9e-51a4-4c38-9a70-5d7f30a1c001"
SECRET = bytes(range(32))
STOP = 7
_API = "vm_migration.api.v1"


def instance(host: str) -> str:
    """Name the machine process of a host."""
    return f"boot-{host}:100:200:token"


def answer(record: Record, *, running: bool, pause: int = 0) -> ProcessAnswer:
    """Speak as the record's machine process."""
    return ProcessAnswer(record.instance, record.controller, running, pause)


def owner(host: str = "host-a", name: str = "guest", machine: str = MACHINE) -> Record:
    """A machine that was created on a host, and runs."""
    record = ownership.create(machine, instance=instance(host), was_running=True, specification=f'{{"name": "{name}"}}')
    return ownership.run_confirmed(record, answer(record, running=True))


def outgoing(record: Record, to: str = "host-b", attempt: str = ATTEMPT) -> Record:
    """It is on its way."""
    key = AttemptKey(record.machine, attempt, 0, 1)
    return departure.begin(record, key, destination=to, was_running=True, secret=SECRET, policy="{}")


def stopped(record: Record) -> Record:
    """It stands still for its last round."""
    return departure.stopped(record, pause=STOP, bound_ms=1000)


def released(record: Record) -> Record:
    """It may run elsewhere."""
    there = SideView(record.attempt or "", State.READY, Process.ALIVE, pause=STOP)
    return departure.released(record, destination=there, process=answer(record, running=False, pause=STOP))


def retired(record: Record) -> Record:
    """It runs elsewhere."""
    there = SideView(record.attempt or "", State.ACTIVE, Process.ALIVE, record.epoch)
    return ownership.retired(record, there)


def aborted(record: Record) -> Record:
    """It stays."""
    return departure.aborted(record, reason="cancelled", process=answer(record, running=False))


def prepared(begun: Record, host: str = "host-b", source_host: str = "host-a") -> Record:
    """What the destination of an attempt writes first."""
    key = AttemptKey(begun.machine, begun.attempt or "", begun.epoch, begun.term)
    secret_hash = bytes.fromhex(begun.secret_hash)
    record = arrival.prepared(None, key, source=source_host, secret_hash=secret_hash, specification=begun.specification)
    return ownership.bound_to(record, instance(host))


def whole(record: Record) -> Record:
    """Everything is there, and not yet verified."""
    return arrival.received_whole(record, pause=STOP)


def ready(record: Record) -> Record:
    """Everything is there and verified."""
    return arrival.ready(record, pause=STOP, was_running=True)


def activating(record: Record) -> Record:
    """It is being started."""
    return arrival.activating(record, pause=STOP, secret=SECRET)


def active(record: Record) -> Record:
    """It runs at its destination."""
    return arrival.active(record, process=answer(record, running=True))


def taken(record: Record) -> Record:
    """It runs here by an operator's word."""
    process = answer(record, running=False, pause=record.pause)
    return replaced(ownership.taken(record, highest_seen=0, process=process, reason="a person"), run_confirmed=True)


def gone(record: Record) -> InstanceGone:
    """Prove that a record's process is gone."""
    return InstanceGone(record.instance)


def replaced(record: Record, **changes: object) -> Record:
    """Return a record with facts that a test is not about."""
    return msgspec.structs.replace(record, **changes)


@dataclass
class Held:
    """One machine at one host: its journal, and what its process is; it says `run_state`, or nothing for "-"."""

    record: Record | None
    process: str = "alive"
    run_state: str = ""
    unreadable: str = ""
    complaint: str = ""

    def custody(self, machine: str) -> types.MachineCustody:
        record = self.record
        run_state = self.run_state
        if record is not None and not run_state and self.process == "alive":
            runs = record.state in OWNING or record.state is State.OUTGOING
            run_state = "incoming" if record.state in ARRIVING else "running" if runs else "paused"
        return types.MachineCustody(
            machine=machine,
            name="" if record is None else name_in(record),
            record="" if record is None else encode(record.public()).decode(),
            unreadable=self.unreadable,
            process=self.process,
            run_state=run_state.strip("-") if self.process == "alive" else "",
            complaint=self.complaint,
        )


@dataclass
class JournalledHost:
    """One host; `on_recover` is what its agents do with a machine when they are told to go on."""

    name: str
    machines: dict[str, Held] = field(default_factory=dict)
    leftovers: list[types.Leftover] = field(default_factory=list)
    clock_s: float = 0.0
    version: str = VERSION
    refuses: MigrationError | None = None
    """What ListCustodies answers instead."""
    on_recover: Callable[[Held], None] = field(default=lambda held: None)
    calls: list[str] = field(default_factory=list)
    files_gone: list[str] = field(default_factory=list)
    """Who vouched for that, at each call."""
    finishes: bool = True
    """A whole arrival can be finished when its source asks."""

    def hold(self, record: Record, process: str = "alive", **facts: str) -> Held:
        held = self.machines[record.machine] = Held(record, process, **facts)
        return held

    def record(self, machine: str) -> Record:
        held = self.machines.get(machine)
        if held is None or held.record is None:
            raise Refused("unknown-machine", f"{self.name} has no journal of {machine}", "")
        return held.record

    def write(self, record: Record) -> Record:
        self.machines[record.machine].record = record
        return record

    def recover(self, machine: str) -> Record:
        self.calls.append("Recover")
        self.record(machine)
        self.on_recover(self.machines[machine])
        return self.record(machine)

    def take(self, request: types.TakeRequest) -> Record:
        self.calls.append(f"Take above {request.highest_seen}")
        record = self.record(request.key.machine)
        if record.state is State.ACTIVATING:
            seen, why = request.highest_seen, request.reason
            return self.write(ownership.lost_by_word(record, highest_seen=seen, process=gone(record), reason=why))
        key = AttemptKey(request.key.machine, request.key.attempt, request.key.epoch, request.key.term)
        record = ownership.match(record, key)
        process = answer(record, running=False, pause=record.pause)
        return self.write(
            ownership.taken(record, highest_seen=request.highest_seen, process=process, reason=request.reason)
        )


class _Host(FakeHost):
    def __init__(self, host: JournalledHost) -> None:
        super().__init__(World(), host.name)
        self.journalled = host

    async def ListCustodies(self, request: types.Empty, context: object) -> types.CustodyReport:
        host = self.journalled
        if host.refuses is not None:
            raise host.refuses
        custodies = [held.custody(machine) for machine, held in host.machines.items()]
        return types.CustodyReport(
            host=host.name,
            version=host.version,
            custodies=custodies,
            leftovers=host.leftovers,
            clock_s=host.clock_s,
        )


class _Source(FakeSource):
    def __init__(self, host: JournalledHost) -> None:
        super().__init__(World(), host.name)
        self.journalled = host

    async def DescribeOutgoing(self, request: source.AttemptRequest, context: object) -> source.OutgoingReport:
        return self._report(self.journalled.record(request.key.machine))

    async def Recover(self, request: types.MachineName, context: object) -> source.OutgoingReport:
        self.journalled.files_gone.append(request.files_gone)
        return self._report(self.journalled.recover(request.machine))

    async def Take(self, request: types.TakeRequest, context: object) -> source.OutgoingReport:
        return self._report(self.journalled.take(request))

    @staticmethod
    def _report(record: Record) -> source.OutgoingReport:
        return source.OutgoingReport(
            state=record.state,
            last_state=record.state,
            highest_epoch=record.highest_epoch,
            owned_epoch=record.owned_epoch,
            record=encode(record.public()).decode(),
        )


class _Destination(FakeDestination):
    def __init__(self, host: JournalledHost) -> None:
        super().__init__(World(), host.name)
        self.journalled = host

    async def Recover(self, request: types.MachineName, context: object) -> destination.IncomingReport:
        return self._report(self.journalled.record(request.machine))

    async def Take(self, request: types.TakeRequest, context: object) -> destination.IncomingReport:
        return self._report(self.journalled.take(request))

    async def DescribeIncoming(
        self, request: destination.DescribeIncomingRequest, context: object
    ) -> destination.IncomingReport:
        return self._report(self.journalled.record(request.key.machine))

    async def Handoff(self, request: destination.HandoffRequest, context: object) -> destination.HandoffResponse:
        self.journalled.calls.append("Handoff")
        record = ownership.match(self.journalled.record(request.key.machine), _key(request.key))
        record = arrival.activating(record, pause=request.pause, secret=request.secret)
        record = arrival.active(record, process=answer(record, running=True))
        return destination.HandoffResponse(state=self.journalled.write(record).state)

    async def Discard(self, request: destination.DiscardRequest, context: object) -> destination.IncomingReport:
        self.journalled.calls.append(f"Discard {request.proof_state}")
        record = self.journalled.record(request.key.machine)
        proof = decode(request.proof_record.encode())
        assert not proof.secret
        there = view(proof, request.key.attempt, request.key.epoch, Process.GONE)
        if there.sight is State.STOPPED:
            record = (
                ready(record) if self.journalled.finishes else arrival.given_up(record, reason="torn", mismatched=True)
            )
        else:
            record = arrival.discarded(record, source=there, reason="its source ended it")
        return self._report(self.journalled.write(record))

    async def NoteRetired(self, request: destination.NoteRetiredRequest, context: object) -> destination.IncomingReport:
        self.journalled.calls.append("NoteRetired")
        assert request.fenced_by
        return self._report(
            self.journalled.write(ownership.former_retired(self.journalled.record(request.key.machine)))
        )

    def _report(self, record: Record) -> destination.IncomingReport:
        return destination.IncomingReport(
            state=record.state,
            last_state=record.state,
            highest_epoch=record.highest_epoch,
            owned_epoch=record.owned_epoch,
            pause=record.pause,
            whole=record.whole,
            process_alive=self.journalled.machines[record.machine].process == "alive",
        )


def _key(key: types.AttemptKey) -> AttemptKey:
    return AttemptKey(key.machine, key.attempt, key.epoch, key.term)


class JournalledSite:
    """Several such hosts, each with two agents on loopback, or with one, or with none."""

    def __init__(self) -> None:
        self.hosts: dict[str, JournalledHost] = {}
        self.addresses: dict[str, HostAddresses] = {}
        self._stacks: dict[tuple[str, str], contextlib.AsyncExitStack] = {}

    def __getitem__(self, host: str) -> JournalledHost:
        return self.hosts[host]

    async def serve(self, name: str) -> None:
        host = self.hosts[name] = JournalledHost(name)
        everyone = Service(f"{_API}.Host", partial(add_HostServicer_to_server, _Host(host)))
        sides = {
            "source": Service(f"{_API}.Source", partial(add_SourceServicer_to_server, _Source(host))),
            "dest": Service(f"{_API}.Destination", partial(add_DestinationServicer_to_server, _Destination(host))),
        }
        addresses = {}
        for side, own in sides.items():
            stack = self._stacks[name, side] = contextlib.AsyncExitStack()
            server = AgentServer("127.0.0.1:0", None, [everyone, own], grace=0.0)
            addresses[side] = (await stack.enter_async_context(server)).address
        self.addresses[name] = HostAddresses(addresses["source"], addresses["dest"])

    async def stop(self, host: str, *sides: str) -> None:
        for side in sides or ("source", "dest"):
            await self._stacks.pop((host, side)).aclose()

    async def close(self) -> None:
        for stack in self._stacks.values():
            await stack.aclose()


@contextlib.asynccontextmanager
async def journalled_site(*hosts: str) -> AsyncIterator[JournalledSite]:
    """Serve some hosts."""
    site = JournalledSite()
    try:
        for host in hosts:
            await site.serve(host)
        yield site
    finally:
        await site.close()
