"""Where a machine is and what it does there, as far as the journals and its processes tell: pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.diagnosis.finding import Code, Finding
from orchestrator.diagnosis.pairs import pairs
from orchestrator.diagnosis.views import MachineView, SiteView
from vm_migration.handover.evidence import Process
from vm_migration.handover.states import ABSENT, State

MachineState = Literal["running", "paused", "silent", "moving", "lost", "unresolved", "contradiction"]
_CONTRADICTS: Final = frozenset({Code.TWO_RUNNING, Code.CONTRADICTION, Code.OUTRANKED})
_OPEN: Final = frozenset({Code.ACTIVATION_UNKNOWN, Code.HANDOVER_WAITING})


@dataclass(frozen=True, slots=True)
class Place:
    """One machine's owner, if anybody is known to own it, and its state."""

    owner: str | None
    epoch: int
    state: MachineState


def place(site: SiteView, machine: MachineView, findings: Iterable[Finding]) -> Place | None:
    """Return where a machine is; None where every host says that it has ended, and none of them by losing it."""
    codes = {one.code for one in findings if one.severity == "problem"}
    owner = machine.owner
    host = owner.host if owner is not None else None
    epoch = owner.record.owned_epoch if owner is not None and owner.record is not None else machine.highest_epoch
    if codes & _CONTRADICTS:
        return Place(host, epoch, "contradiction")
    if codes & _OPEN or (owner is None and Code.ABANDONED_IMAGE in codes):
        return Place(host, epoch, "unresolved")
    if any(pair.leaving or (pair.arriving and owner is None) for pair in pairs(machine)):
        return Place(host, epoch, "lost" if Code.MACHINE_GONE in codes else "moving")
    if owner is not None:
        return Place(host, epoch, _of_owner(owner.process, owner.run_state))
    return _without_owner(site, machine, epoch)


def _of_owner(process: Process, run_state: str) -> MachineState:
    if process is Process.GONE:
        return "lost"
    if run_state == "running":
        return "running"
    return "paused" if run_state else "silent"


def _without_owner(site: SiteView, machine: MachineView, epoch: int) -> Place | None:
    records = machine.records.values()
    last = max(records, key=lambda record: record.highest_epoch, default=None)
    known = len(records) == len(machine.copies) and not site.silent
    if last is None or not all(record.state in ABSENT for record in records):
        return Place(None, epoch, "unresolved")
    if last.state is State.DESTROYED:
        return None
    if any(record.state is State.LOST and record.highest_epoch == last.highest_epoch for record in records):
        return Place(None, epoch, "lost")
    return None if known else Place(None, epoch, "unresolved")
