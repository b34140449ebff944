"""What both journals say of an attempt's end, where no agent drives it or remembers it any more. Pure.

::

    destination   source                                          end
    ACTIVE        any                                             completed
    TAKEN         any                                             completed, with a warning: writes may be missing
    any           RETIRED, having released at this epoch          completed
    any           RECLAIMED, in the process that an update made   completed
    any           ABORTED, RECLAIMED, TAKEN                       failed, or cancelled as was asked
    any           LOST                                            lost
    any           past this epoch, having never released at it    failed
    anything else, or nobody answers                              not known: ask again

An answer counts only from a journal that holds the machine; silence says nothing.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from orchestrator.attempt import Attempt, Fault, Notice, Outcome, Phase
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.api.v1.source_pb2 import OutgoingReport
from vm_migration.handover.record import Record, decode
from vm_migration.handover.succession import went_over

_BACK: Final = frozenset({"ABORTED", "RECLAIMED", "TAKEN"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended, and why where it did not complete."""

    phase: Phase
    outcome: Outcome
    error: Fault | None = None
    warnings: tuple[Notice, ...] = ()


def verdict(attempt: Attempt, outgoing: OutgoingReport | None, incoming: IncomingReport | None) -> Verdict | None:
    """Return how an attempt ended, or None where the answers do not say; None as a report is a host that was silent."""
    if not attempt.epoch:
        return None
    there = None if incoming is None else _by_destination(attempt, incoming)
    return there if there is not None or outgoing is None else _by_source(attempt, outgoing)


def _by_destination(attempt: Attempt, incoming: IncomingReport) -> Verdict | None:
    if incoming.state == "ACTIVE" or incoming.owned_epoch == attempt.epoch:
        return Verdict(Phase.COMPLETED, Outcome.COMPLETED)
    if incoming.state == "TAKEN":
        missing = Notice("may-miss-writes", "An operator had the destination start without the source's release")
        return Verdict(Phase.COMPLETED, Outcome.COMPLETED, warnings=(missing,))
    return None


def _by_source(attempt: Attempt, outgoing: OutgoingReport) -> Verdict | None:
    record = _record(outgoing)
    released = 0 if record is None else record.released_epoch
    why = "" if record is None else record.reason
    past = not outgoing.state and record is not None and outgoing.highest_epoch > attempt.epoch > released
    found = None
    updated = bool(outgoing.state) and record is not None and went_over(record)
    if updated or (outgoing.state == "RETIRED" and released == attempt.epoch):
        found = Verdict(Phase.COMPLETED, Outcome.COMPLETED)
    elif outgoing.state in _BACK:
        found = _aborted(attempt, why or "The attempt ended at its source")
    elif outgoing.state == "LOST":
        found = Verdict(Phase.LOST, Outcome.LOST, Fault("machine-lost", why or "The machine's process ended"))
    elif past:
        found = _aborted(attempt, "The source has gone on since, and never released the machine in this attempt")
    return found


def _aborted(attempt: Attempt, why: str) -> Verdict:
    if attempt.cancel_requested and attempt.error is None:
        return Verdict(Phase.ABORTED, Outcome.CANCELLED)
    return Verdict(Phase.ABORTED, Outcome.FAILED, attempt.error or Fault("attempt-failed", why, "Migrate again"))


def _record(outgoing: OutgoingReport) -> Record | None:
    try:
        return decode(outgoing.record.encode())
    except msgspec.DecodeError:  # none was sent, or a newer version wrote it
        return None
