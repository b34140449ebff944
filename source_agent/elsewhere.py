"""What the other hosts of the site say of a machine that this host takes for its own.

They are asked all at once and with a short deadline. A host that is silent proves nothing, either way.
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
from vm_migration.handover.evidence import Process
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
class Other:
    """Where a host's journal of a machine stands, and its process."""

    host: str
    state: State
    owned_epoch: int
    process: Process
    record: Record | None
    """None where it cannot be read here."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A host's claim on a machine that stands above what this host owns."""

    host: str
    state: State
    epoch: int

    def __str__(self) -> str:
        return f"{self.host} has it at epoch {self.epoch} ({self.state}), above what this host owns"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The destination agents of the site's other hosts, by name."""

    hosts: Mapping[str, str]
    tls: TlsFiles | None = None
    channels: OpenChannel = open_channel

    async def others(self, records: Sequence[Record]) -> dict[str, list[Other]]:
        """Return what every host that answers says of each machine; nothing of machines that none has a journal of."""
        if not records or not self.hosts:
            return {}
        turn = asyncio.Semaphore(_AT_ONCE)
        async with AsyncExitStack() as stack:
            methods: dict[str, Describe] = {}
            for host, address in self.hosts.items():
                channel = await stack.enter_async_context(self.channels(address, self.tls, host))
                methods[host] = DestinationStub(channel).DescribeIncoming

            async def ask(host: str, machine: str) -> tuple[str, Other | None]:
                async with turn:
                    return machine, await _other(methods[host], host, machine)

            answers = await asyncio.gather(*(ask(host, record.machine) for host in methods for record in records))
        found: dict[str, list[Other]] = {}
        for machine, other in answers:
            if other is not None:
                found.setdefault(machine, []).append(other)
        return found


def highest_claim(record: Record, others: Sequence[Other]) -> Claim | None:
    """Return the highest claim that outranks this host, if any does."""
    claims = [claim for other in others if (claim := _claim(record, other)) is not None]
    return max(claims, key=lambda claim: claim.epoch, default=None)


def _claim(record: Record, other: Other) -> Claim | None:
    if record.state is State.RELEASED and other.owned_epoch <= record.epoch:
        return None  # what this host itself has given away
    # Who owned it at a higher epoch was its owner later than this host, whatever has become of it since.
    if outranked(record, State.ACTIVE, other.owned_epoch):
        return Claim(other.host, other.state, other.owned_epoch)
    epoch = other.record.epoch if other.record is not None and other.state is State.ACTIVATING else 0
    return Claim(other.host, other.state, epoch) if outranked(record, other.state, epoch) else None


async def _other(method: Describe, host: str, machine: str) -> Other | None:
    request = destination_pb2.DescribeIncomingRequest(key=types_pb2.AttemptKey(machine=machine))
    try:
        report = await call(method, request, peer=host, deadline=_DEADLINE)
        state = State(report.last_state)
    except (MigrationError, ValueError):  # silent, without a journal of it, or of version 0.1, which does not tell
        return None
    process = Process.ALIVE if report.process_alive else Process.GONE
    return Other(host, state, report.owned_epoch, process, _record(report))


def _record(report: destination_pb2.IncomingReport) -> Record | None:
    try:
        return decode(report.record.encode())
    except msgspec.DecodeError:
        return None
