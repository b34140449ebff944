"""Asking an arrival's source what its journal says of the attempt: each question a call of its own, with a deadline."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import Process, SideView, reported, sight_of, unreachable, view
from vm_migration.handover.record import Record, decode
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
        address = self._addresses.get(record.peer)
        if address is None:
            return Word(unreachable(attempt), silence=f"no address of {record.peer} is configured here")
        key = types_pb2.AttemptKey(
            machine=record.machine, attempt=attempt, epoch=record.epoch, term=record.term, sequence=record.sequence
        )
        request = source_pb2.AttemptRequest(key=key)
        try:
            async with self._channels(address, self._tls, record.peer) as channel:
                ask = SourceStub(channel).DescribeOutgoing
                report = await call(ask, request, peer=f"{record.peer} ({address})", deadline=deadline)
            return _word(report, record)
        except (MigrationError, ValueError, msgspec.MsgspecError) as error:
            return Word(unreachable(attempt), silence=str(error))


def _word(report: source_pb2.OutgoingReport, record: Record) -> Word:
    """Read a report; the record in it says most, and one of another version still has the report's own fields."""
    attempt = record.attempt or ""
    process = Process.ALIVE if report.process_alive else Process.GONE
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
