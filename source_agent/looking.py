"""How an attempt's destination is seen from its source: what its journal says, as far as it can be asked."""

import contextlib
from typing import Final

import msgspec

from source_agent.destination_link import DestinationLink
from source_agent.sequences import ROLLED_BACK
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Stale
from vm_migration.handover.evidence import Process, SideView, reported, sight_of, unreachable, view
from vm_migration.handover.record import decode

LOOK_DEADLINE: Final = 5.0
_TRIES: Final = 2
"""A destination may refuse a call of ours that a later one overtook, once."""


async def look(link: DestinationLink, key: types_pb2.AttemptKey, deadline: float = LOOK_DEADLINE) -> SideView:
    """Return what the destination shows of an attempt; unreachable where it does not answer as it should.

    Raises:
        Stale: One of the two journals was rolled back: nothing may be concluded from either.
    """
    for left in reversed(range(_TRIES)):
        try:
            report = await link.describe(destination_pb2.DescribeIncomingRequest(key=key), deadline)
            return _seen(report, key)
        except Stale as error:
            if error.code == ROLLED_BACK and not left:
                raise
        except (MigrationError, ValueError):
            return unreachable(key.attempt)
    return unreachable(key.attempt)


def _seen(report: destination_pb2.IncomingReport, key: types_pb2.AttemptKey) -> SideView:
    process = Process.ALIVE if report.process_alive else Process.GONE
    if report.record:  # of a destination of this version: the record itself answers for attempts long past, too
        with contextlib.suppress(msgspec.DecodeError):
            return view(decode(report.record.encode()), key.attempt, key.epoch, process)
    return reported(
        key.attempt,
        key.epoch,
        sight=sight_of(report.state),
        highest_epoch=report.highest_epoch,
        pause=report.pause,
        whole=report.whole,
        process=process,
    )
