"""The agents of the configured hosts, as calls: one channel an agent, every call with its deadline.

Deadlines are generous for calls that touch memory (creating a machine, preparing a destination) and short for the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar

import grpc.aio

from orchestrator.host_standing import UNREACHABLE
from orchestrator.policy import Transport
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import machine_pb2 as machine
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.machine_pb2_grpc import HostStub, MachinesStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import InvalidInput, Unreachable
from vm_migration.link.call import call, stream
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.renewed_channels import RenewedChannels
from vm_migration.link.tls import TlsFiles

Side = Literal["source", "dest"]
_Answer = TypeVar("_Answer")

_AGAIN_SECONDS: Final = 0.6
"""After which a channel whose agent is back has found it."""
ASK_SECONDS: Final = 5.0
CHECK_SECONDS: Final = 15.0
ACT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 10.0  # a frozen process may keep a journal's lock for 5 s, a frozen machine its answer for 2 s
TAKE_SECONDS: Final = 60.0  # an agent may first have to finish what arrived
PREPARE_BASE_SECONDS: Final = 30.0
SECONDS_PER_GIB: Final = 15.0  # first touch of a page costs about 10 us on nested hosts; a GiB has 262144 of them
SILENCE_SECONDS: Final = 5.0  # a watch sends at least one report a second
MOST_AT_ONCE: Final = 128
"""Hosts that are asked at a time: a deadline begins when a host is asked, and a thousand handshakes take seconds."""


def memory_deadline(ram_bytes: int) -> float:
    """Return how long a call may take that touches all of a machine's memory, in seconds."""
    return PREPARE_BASE_SECONDS + SECONDS_PER_GIB * ram_bytes / (1 << 30)


async def asked_again(question: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask once more where there was no connection: it may have ended with an agent that was restarted."""
    try:
        return await question()
    except Unreachable as error:
        if error.code != UNREACHABLE:
            raise
    await asyncio.sleep(_AGAIN_SECONDS)
    return await question()


async def of_each(
    hosts: Iterable[str], ask: Callable[[str], Awaitable[_Answer]], *, at_once: int = MOST_AT_ONCE
) -> list[_Answer]:
    """Ask some hosts, many at a time, and return their answers in order."""
    turns = asyncio.Semaphore(at_once)

    async def asked(host: str) -> _Answer:
        async with turns:
            return await ask(host)

    return await asyncio.gather(*(asked(host) for host in hosts))


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """Where the two agents of a host listen, and how memory travels to it where nobody says otherwise."""

    source: str
    dest: str
    transport: Transport | None = None

    def of(self, side: Side) -> str:
        """Return the address of one of them."""
        return self.source if side == "source" else self.dest


class Agents:
    """Channels to the agents, opened when first needed and closed with the context."""

    def __init__(
        self, hosts: Mapping[str, HostAddresses], tls: TlsFiles | None, channels: OpenChannel = open_channel
    ) -> None:
        """Remember the hosts; nothing is opened. `tls` None speaks plaintext, to loopback only."""
        self.hosts: Final = dict(hosts)
        self._channels: Final = RenewedChannels(tls, channels)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channels.close()

    def require(self, host: str) -> None:
        """Accept a configured host.

        Raises:
            InvalidInput: The host is not configured.
        """
        if host not in self.hosts:
            known = ", ".join(sorted(self.hosts)) or "none"
            raise InvalidInput(
                "unknown-host",
                f'Host "{host}" is not configured (known: {known})',
                f"Add [host.{host}] to viaduct.toml",
            )

    def channel(self, host: str, side: Side) -> tuple[grpc.aio.Channel, str]:
        """Return the channel to an agent, and its name for people.

        Raises:
            InvalidInput: Unknown host, bad address, or unusable TLS files.
        """
        self.require(host)
        address = self.hosts[host].of(side)
        return self._channels.to(address, host), f"{host} ({side} agent at {address})"

    async def describe_host(self, host: str, side: Side) -> types.HostFacts:
        """Return what a host is, as one of its agents says."""
        channel, peer = self.channel(host, side)
        return await call(HostStub(channel).DescribeHost, types.Empty(), peer=peer, deadline=ASK_SECONDS)

    # machines

    async def create_machine(self, host: str, specification: bytes, ram_bytes: int) -> types.MachineStatus:
        """Create a machine and return it running."""
        channel, peer = self.channel(host, "source")
        request = machine.CreateMachineRequest(specification=specification)
        deadline = memory_deadline(ram_bytes)
        return await call(MachinesStub(channel).CreateMachine, request, peer=peer, deadline=deadline)

    async def list_machines(self, host: str) -> tuple[types.MachineStatus, ...]:
        """Return the machines of a host."""
        channel, peer = self.channel(host, "source")
        answer = await call(MachinesStub(channel).ListMachines, types.Empty(), peer=peer, deadline=ASK_SECONDS)
        return tuple(answer.machines)

    async def get_machine(self, host: str, name: str) -> types.MachineStatus:
        """Return one machine."""
        channel, peer = self.channel(host, "source")
        request = machine.MachineRequest(machine=name)
        return await call(MachinesStub(channel).GetMachine, request, peer=peer, deadline=ASK_SECONDS)

    async def act_on_machine(
        self, host: str, name: str, act: Literal["pause", "resume", "suspend", "wake", "destroy"]
    ) -> types.MachineStatus:
        """Pause, resume or destroy a machine, or have its guest sleep or wake; refused while an attempt is open."""
        channel, peer = self.channel(host, "source")
        stub = MachinesStub(channel)
        methods = {
            "pause": stub.PauseMachine,
            "resume": stub.ResumeMachine,
            "suspend": stub.SuspendMachine,
            "wake": stub.WakeMachine,
            "destroy": stub.DestroyMachine,
        }
        return await call(methods[act], machine.MachineRequest(machine=name), peer=peer, deadline=ACT_SECONDS)

    async def measure_dirty_rate(self, host: str, name: str, window_ms: int) -> machine.DirtyRate:
        """Log a machine's writes for a while; refused while an attempt is open."""
        channel, peer = self.channel(host, "source")
        request = machine.MeasureDirtyRateRequest(machine=name, window_ms=window_ms)
        deadline = ACT_SECONDS + window_ms / 1000
        return await call(MachinesStub(channel).MeasureDirtyRate, request, peer=peer, deadline=deadline)

    # the source's side of an attempt

    async def check_outgoing(self, host: str, request: source.CheckOutgoingRequest) -> source.CheckOutgoingResponse:
        """Ask whether a machine can leave. No side effect, but that its writes are logged while they are measured."""
        channel, peer = self.channel(host, "source")
        deadline = CHECK_SECONDS + request.measure_ms / 1000
        return await call(SourceStub(channel).CheckOutgoing, request, peer=peer, deadline=deadline)

    async def begin(self, host: str, request: source.BeginRequest) -> source.BeginResponse:
        """Open an attempt; asked twice, it answers with the attempt's state."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).Begin, request, peer=peer, deadline=ACT_SECONDS)

    async def check_update(self, host: str, request: source.CheckUpdateRequest) -> source.CheckUpdateResponse:
        """Ask whether a machine can go on in another process. No side effect."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).CheckUpdate, request, peer=peer, deadline=CHECK_SECONDS)

    async def begin_update(self, host: str, request: source.BeginUpdateRequest) -> source.BeginResponse:
        """Open an update; asked twice, it answers with its state."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).BeginUpdate, request, peer=peer, deadline=ACT_SECONDS)

    async def start(self, host: str, request: source.StartRequest) -> source.AttemptReport:
        """Start the rounds."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).Start, request, peer=peer, deadline=ACT_SECONDS)

    async def get_attempt(self, host: str, key: types.AttemptKey) -> source.AttemptReport:
        """Return an attempt as its source knows it."""
        channel, peer = self.channel(host, "source")
        request = source.AttemptRequest(key=key)
        return await call(SourceStub(channel).GetAttempt, request, peer=peer, deadline=ASK_SECONDS)

    def watch(self, host: str, key: types.AttemptKey) -> AsyncIterator[source.AttemptReport]:
        """Yield an attempt's reports until it ends."""
        channel, peer = self.channel(host, "source")
        request = source.AttemptRequest(key=key)
        return stream(SourceStub(channel).Watch, request, peer=peer, silence=SILENCE_SECONDS)

    async def cancel(self, host: str, key: types.AttemptKey) -> source.AttemptReport:
        """Cancel before the release; refused after it. It answers when ABORTED is durable."""
        channel, peer = self.channel(host, "source")
        request = source.AttemptRequest(key=key)
        return await call(SourceStub(channel).Cancel, request, peer=peer, deadline=ACT_SECONDS)

    async def force(self, host: str, key: types.AttemptKey) -> source.AttemptReport:
        """Switch over at once, whatever the standstill; refused where no round is under way."""
        channel, peer = self.channel(host, "source")
        request = source.AttemptRequest(key=key)
        return await call(SourceStub(channel).Force, request, peer=peer, deadline=ACT_SECONDS)

    async def tune(self, host: str, request: source.TuneRequest) -> source.AttemptReport:
        """Change the limits of an attempt; one that names no limit only tells the term in which it is driven."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).Tune, request, peer=peer, deadline=ACT_SECONDS)

    # the destination's side of an attempt

    async def check_incoming(
        self, host: str, request: destination.CheckIncomingRequest
    ) -> destination.CheckIncomingResponse:
        """Ask whether a machine can arrive. No side effect, but that memory is touched where that is measured."""
        channel, peer = self.channel(host, "dest")
        deadline = CHECK_SECONDS + request.measure_ms / 1000
        return await call(DestinationStub(channel).CheckIncoming, request, peer=peer, deadline=deadline)

    async def prepare(self, host: str, request: destination.PrepareRequest) -> destination.PrepareResponse:
        """Have a destination start its machine process and touch its memory."""
        channel, peer = self.channel(host, "dest")
        deadline = memory_deadline(request.requirements.ram_bytes)
        return await call(DestinationStub(channel).Prepare, request, peer=peer, deadline=deadline)

    async def describe_incoming(self, host: str, key: types.AttemptKey) -> destination.IncomingReport:
        """Return an attempt as its destination knows it."""
        channel, peer = self.channel(host, "dest")
        request = destination.DescribeIncomingRequest(key=key)
        return await call(DestinationStub(channel).DescribeIncoming, request, peer=peer, deadline=ASK_SECONDS)

    async def discard(self, host: str, request: destination.DiscardRequest) -> destination.IncomingReport:
        """Have a destination forget an attempt, on the source's proof."""
        channel, peer = self.channel(host, "dest")
        return await call(DestinationStub(channel).Discard, request, peer=peer, deadline=ACT_SECONDS)

    # recovery

    async def list_custodies(self, host: str, side: Side) -> types.CustodyReport:
        """Return every journal and machine process of a host, as one of its agents finds them. No side effect."""
        channel, peer = self.channel(host, side)
        return await call(HostStub(channel).ListCustodies, types.Empty(), peer=peer, deadline=LOOK_SECONDS)

    async def describe_outgoing(self, host: str, key: types.AttemptKey) -> source.OutgoingReport:
        """Return what a source's journal says of an attempt."""
        channel, peer = self.channel(host, "source")
        request = source.AttemptRequest(key=key)
        return await call(SourceStub(channel).DescribeOutgoing, request, peer=peer, deadline=ASK_SECONDS)

    async def recover_source(self, host: str, machine_uuid: str, files_gone: str = "") -> source.OutgoingReport:
        """Have a source agent go on now with what an earlier life left of a machine.

        `files_gone` is who vouches that the files are gone in which it waited, empty where nobody does.
        """
        channel, peer = self.channel(host, "source")
        request = types.MachineName(machine=machine_uuid, files_gone=files_gone)
        return await call(SourceStub(channel).Recover, request, peer=peer, deadline=ACT_SECONDS)

    async def recover_destination(self, host: str, machine_uuid: str) -> destination.IncomingReport:
        """Have a destination agent go on now with what an earlier life left of a machine."""
        channel, peer = self.channel(host, "dest")
        request = types.MachineName(machine=machine_uuid)
        return await call(DestinationStub(channel).Recover, request, peer=peer, deadline=ACT_SECONDS)

    async def take_at_source(self, host: str, request: types.TakeRequest) -> source.OutgoingReport:
        """Have a source take a released machine back, on an operator's word that writes may be missing."""
        channel, peer = self.channel(host, "source")
        return await call(SourceStub(channel).Take, request, peer=peer, deadline=TAKE_SECONDS)

    async def take_at_destination(self, host: str, request: types.TakeRequest) -> destination.IncomingReport:
        """Have a destination start a whole image without its source's release, on an operator's word."""
        channel, peer = self.channel(host, "dest")
        return await call(DestinationStub(channel).Take, request, peer=peer, deadline=TAKE_SECONDS)

    async def hand_off(self, host: str, request: destination.HandoffRequest) -> destination.HandoffResponse:
        """Give a destination the secret of a released machine."""
        channel, peer = self.channel(host, "dest")
        return await call(DestinationStub(channel).Handoff, request, peer=peer, deadline=TAKE_SECONDS)

    async def note_retired(self, host: str, request: destination.NoteRetiredRequest) -> destination.IncomingReport:
        """Tell an owner that its former source is RETIRED, or fenced by an operator's word."""
        channel, peer = self.channel(host, "dest")
        return await call(DestinationStub(channel).NoteRetired, request, peer=peer, deadline=ACT_SECONDS)
