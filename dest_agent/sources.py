"""Asking an arrival's source what its journal says of the attempt: each question a call of its own, with a deadline."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import Process, SideView, reported, sight_of, unreachable, view
from vm_migration.handover.record import Record, decode
from vm_migration.handover.yielding import gives_way
from vm_migration.link.call import call
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.tls import TlsFiles

ASK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Word:
    """What a source said, or that it said nothing: `silence` says why then."""

    view: SideView
    sequence: int = 0
    silence: str = ""

    @property
    def heard(self) -> bool:
        """Whether it answered with what its journal says."""
        return not self.silence


class Sources:
    """The site's source agents, by host."""

    def __init__(
        self,
        addresses: Mapping[str, str] | None = None,
        tls: TlsFiles | None = None,
        channels: OpenChannel = open_channel,
    ) -> None:
        self._addresses: Final = dict(addresses or {})
        self._tls: Final = tls
        self._channels: Final = channels

    async def ask(self, record: Record, deadline: float = ASK_SECONDS) -> Word:
        """Ask the other host of a record's attempt; whatever goes wrong, it is silent, and nothing follows from it."""
        attempt = record.attempt or ""
        if record.peer not in self._addresses:
            return Word(unreachable(attempt), silence=f"no address of {record.peer} is configured here")
        try:
            return _word(await self._asked(record.peer, record, record.sequence, deadline), record)
        except (MigrationError, ValueError, msgspec.MsgspecError) as error:
            return Word(unreachable(attempt), silence=str(error))

    async def owner(self, record: Record, process: Process, deadline: float = ASK_SECONDS) -> SideView | None:
        """Ask every host of the site for one to which this copy gives way (vm_migration.handover.yielding)."""
        answers = await asyncio.gather(*(self._other(host, record, deadline) for host in self._addresses))
        owners = (gives_way(record, process, theirs, alive) for theirs, alive in filter(None, answers))
        return next(filter(None, owners), None)

    async def _other(self, host: str, record: Record, deadline: float) -> tuple[Record, Process] | None:
        """Return where a host's journal of a record's machine stands, and its process; None where it does not tell."""
        try:
            report = await self._asked(host, record, 0, deadline)
            theirs = decode(report.record.encode())
        except (MigrationError, ValueError, msgspec.MsgspecError):
            return None
        return (theirs, _process(report)) if theirs.machine == record.machine else None

    async def _asked(self, host: str, record: Record, sequence: int, deadline: float) -> source_pb2.OutgoingReport:
        key = types_pb2.AttemptKey(
            machine=record.machine,
            attempt=record.attempt or "",
            epoch=record.epoch,
            term=record.term,
            sequence=sequence,
        )
        address = self._addresses[host]
        async with self._channels(address, self._tls, host) as channel:
            ask = SourceStub(channel).DescribeOutgoing
            request = source_pb2.AttemptRequest(key=key)
            return await call(ask, request, peer=f"{host} ({address})", deadline=deadline)


def _word(report: source_pb2.OutgoingReport, record: Record) -> Word:
    """Read a report; the record in it says most, and one of another version still has the report's own fields."""
    attempt = record.attempt or ""
    process = _process(report)
    if not report.highest_epoch:
        return Word(unreachable(attempt), silence=f"{record.peer} has no journal of it that can be read")
    if report.record:
        theirs = decode(report.record.encode())
        if theirs.machine != record.machine:
            return Word(unreachable(attempt), silence=f"{record.peer} answered for machine {theirs.machine}")
        return Word(view(theirs, attempt, record.epoch, process), theirs.sequence)
    seen = reported(
        attempt,
        record.epoch,
        sight=sight_of(report.state),
        highest_epoch=report.highest_epoch,
        pause=report.pause,
        whole=False,
        process=process,
    )
    return Word(seen, report.sequence)


def _process(report: source_pb2.OutgoingReport) -> Process:
    return Process.ALIVE if report.process_alive else Process.GONE
