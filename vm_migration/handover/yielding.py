"""When a copy gives way to an operator's TAKEN at any other host of the site: a pure function (ADR 0009).

The machine may have been taken from the copy of an earlier attempt, at a host of which this one's own attempt knows
nothing; so a host that returns is answered by every host. A copy whose process lives gives way only to an owner whose
process lives, at a higher epoch; one without a process can never run again, and gives way to any TAKEN.

A machine that this host takes for its own gives way by itself to a host that stands at TAKEN now. To one that has only
owned it at a higher epoch since (ABOVE), it gives way when a person has asked for it: a journal that was rolled back
looks the same.
"""

from vm_migration.handover.evidence import Absence, Process, SideView, view
from vm_migration.handover.record import Record
from vm_migration.handover.states import LEAVING, State


def gives_way(
    own: Record, process: Process, other: Record, other_process: Process, *, asked: bool = False
) -> SideView | None:
    """Return how the other host is seen where this host's copy retires for it; `asked`: by a person."""
    if not (own.state in LEAVING or own.owns or own.state is State.ACTIVATING):
        return None
    seen = view(other, own.attempt or "", own.epoch, other_process)
    taken = other.state is State.TAKEN
    above = seen.sight is Absence.ABOVE and (asked or not own.owns)
    higher = other.owned_epoch > max(own.owned_epoch, own.epoch)
    if process is Process.ALIVE:
        gives = (taken or above) and higher and other.owns and other_process is Process.ALIVE
    elif process is Process.GONE:
        retired_there = own.state in LEAVING and seen.held and seen.sight is State.RETIRED
        gives = taken or (above and higher) or retired_there
    else:
        gives = False
    if not gives:
        return None
    sight = State.TAKEN if taken else seen.sight
    return SideView(own.attempt or "", sight, other_process, other.highest_epoch, held=seen.held)
