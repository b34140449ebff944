"""What peers are told of a machine's journal at this host."""

from vm_migration.api.v1 import destination_pb2
from vm_migration.handover.evidence import Absence, view
from vm_migration.handover.record import Record, encode
from vm_migration.machine.hypervisor import Hypervisor

_TOLD_BY_EPOCH = frozenset({Absence.NOTHING, Absence.PASSED})
"""A peer tells these apart by the highest epoch."""


def report(
    record: Record, attempt: str, epoch: int, hypervisor: Hypervisor, *, stale_pages: int = 0
) -> destination_pb2.IncomingReport:
    """Return a record as it answers a question about one attempt, or, where none is named, about the machine."""
    held = record.attempt == attempt or not attempt
    sight = record.state if held else view(record, attempt, epoch).sight
    living = hypervisor.instance_lives(record.instance)
    return destination_pb2.IncomingReport(
        state="" if sight in _TOLD_BY_EPOCH else sight,
        highest_epoch=record.highest_epoch,
        pause=record.pause if held else 0,
        process_alive=hypervisor.of_text(record.machine).alive() if living is None else living,
        whole=held and record.whole,
        stale_pages=stale_pages,
        last_state=record.state,
        owned_epoch=record.owned_epoch,
        sequence=record.sequence,
        record=encode(record.public()).decode(),
    )
