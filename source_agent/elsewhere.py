"""What the other hosts of the site claim of a machine that this host takes for its own.

They are asked once, when the agent starts and before it serves anything, all at once and with a short deadline. A host
that is silent proves nothing, either way.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import grpc.aio
import msgspec

from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import SideView
from vm_migration.handover.record import Record, decode
from vm_migration.handover.recovery import outranked
from vm_migration.handover.states import State
from vm_migration.link.call import call
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.tls import TlsFiles

_DEADLINE: Final = 2.0
_AT_ONCE: Final = 16
Describe = grpc.aio.UnaryUnaryMultiCallable[destination_pb2.DescribeIncomingRequest, destination_pb2.IncomingReport]


@dataclass(frozen=True, slots=True)
class Claim:
    """A host's claim on a machine that stands above what this host owns."""

    host: str
    state: str
    epoch: int

    def view(self, record: Record) -> SideView:
        """Return it as the other side of a record's attempt, for whoever retires before it."""
        return SideView(record.attempt or "", State(self.state), highest_epoch=self.epoch, held=False)

    def __str__(self) -> str:
        return f"{self.host} has it at epoch {self.epoch} ({self.state}), above what this host owns"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The destination agents of the site's other hosts, by name."""

    hosts: Mapping[str, str]
    tls: TlsFiles | None = None
    channels: OpenChannel = open_channel

    async def claims(self, records: Sequence[Record]) -> dict[str, Claim]:
        """Return the highest claim that outranks this host, for each machine that has one."""
        if not records or not self.hosts:
            return {}
        turn = asyncio.Semaphore(_AT_ONCE)
        async with AsyncExitStack() as stack:
            methods: dict[str, Describe] = {}
            for host, address in self.hosts.items():
                channel = await stack.enter_async_context(self.channels(address, self.tls, host))
                methods[host] = DestinationStub(channel).DescribeIncoming

            async def ask(host: str, record: Record) -> tuple[str, Claim | None]:
                async with turn:
                    return record.machine, await _claim(methods[host], host, record)

            answers = await asyncio.gather(*(ask(host, record) for host in methods for record in records))
        found: dict[str, Claim] = {}
        for machine, claim in answers:
            if claim is not None and (machine not in found or claim.epoch > found[machine].epoch):
                found[machine] = claim
        return found


async def _claim(method: Describe, host: str, record: Record) -> Claim | None:
    request = destination_pb2.DescribeIncomingRequest(key=types_pb2.AttemptKey(machine=record.machine))
    try:
        report = await call(method, request, peer=host, deadline=_DEADLINE)
        state = State(report.last_state)
    except (MigrationError, ValueError):  # silent, without a journal of it, or of version 0.1, which does not tell
        return None
    # Who owned it at a higher epoch was its owner later than this host, whatever has become of it since.
    if outranked(record, State.ACTIVE, report.owned_epoch):
        return Claim(host, state, report.owned_epoch)
    epoch = _attempts_epoch(report) if state is State.ACTIVATING else 0
    return Claim(host, state, epoch) if outranked(record, state, epoch) else None


def _attempts_epoch(report: destination_pb2.IncomingReport) -> int:
    try:
        return decode(report.record.encode()).epoch
    except msgspec.DecodeError:
        return 0
