"""An update: an attempt whose destination is another process of the same host, in the one journal that a host has.

::

    OWNER -> OUTGOING -> STOPPED -------------> RELEASED -> RECLAIMED, in the new process, at the attempt's epoch + 1
                |            |  (new: READY)       |
                '-> ABORTED <'                     '------> RECLAIMED, in the old process: the new one is gone

What a destination writes into its own journal stands in the source's records here: the process that is to have the
machine is named in the attempt's terms once it has everything (READY), and RECLAIMED names it as the machine's own
(ACTIVE): the host has never ceased to own the machine. Up to RECLAIMED the new process has run nothing, so that there
is no state in which nobody can know whether it did (ADR 0025).
"""

import msgspec

from vm_migration.errors import Refused
from vm_migration.handover.evidence import InstanceGone, Process, SideView
from vm_migration.handover.ownership import require_gone
from vm_migration.handover.record import Record
from vm_migration.handover.states import State, check_transition


class UpdateTerms(msgspec.Struct, frozen=True):
    """What an update is, in the terms of its attempt; processes are named as in a record's `instance`."""

    mode: str
    predecessor: str = ""
    """The process that had the machine; empty until the other has everything."""
    successor: str = ""
    """The one that is to have it; empty until it has everything. Of mode `exec` the same one, once it runs the new
    program: nothing is released then, and ABORTED says that the machine goes on where it was. Of mode `reboot` the one
    that was started last from the files, and empty before."""
    waits: str = ""
    """Mode `reboot`: the file beside RAM's by which the suspended machine waits; empty until it does."""
    home: str = ""
    """Which folder that file is in (vm_migration.machine.waiting_in_files)."""


class _Terms(msgspec.Struct):
    """The one key of an attempt's terms that is wanted here."""

    update: UpdateTerms | None = None


def update_of(record: Record) -> UpdateTerms | None:
    """Return what the update is that a record's attempt is or was; None of a migration."""
    if not record.policy:
        return None
    try:
        return msgspec.json.decode(record.policy, type=_Terms).update
    except msgspec.DecodeError:
        return None


def waits_in_files(record: Record) -> bool:
    """Tell whether a record's attempt is or was an update that left the machine in files."""
    update = update_of(record)
    return update is not None and bool(update.waits)


def went_over(record: Record) -> bool:
    """Tell whether the machine is the new process's, which its update was made for, or runs the new program."""
    update = update_of(record)
    if update is None or record.instance != update.successor or not update.successor:
        return False
    return record.state is (State.ABORTED if update.mode == "exec" else State.RECLAIMED)


def other_process(record: Record) -> str:
    """Return the process of an update that is over which is not the machine's; empty where there is none."""
    update = update_of(record)
    if update is None:
        return ""
    return next((each for each in (update.predecessor, update.successor) if each != record.instance), "")


def successor_view(record: Record, process: Process) -> SideView:
    """Return how the process that is to have the machine is seen, as the destination that it is of the attempt.

    A machine that waits in files is seen as one that has everything: `process` says whether they are there.
    """
    update, attempt = update_of(record), record.attempt or ""
    if update is None or not (update.successor or update.waits):
        return SideView(attempt, State.PREPARED, Process.GONE)
    return SideView(attempt, State.READY, process, record.epoch, record.pause, whole=True)


def succeeded(record: Record, *, destination: SideView) -> Record:
    """RECLAIMED in the process that took over: it may run the machine once this is durable, and nobody else may.

    The caller has had the old process fenced, or has the proof that it is gone.
    """
    if went_over(record):
        return record
    check_transition(record.state, State.RECLAIMED)
    update = update_of(record)
    ready = destination.sight is State.READY and destination.process is Process.ALIVE
    if update is None or not update.successor or not ready or destination.pause != record.pause:
        raise Refused("no-proof", f"No other process is seen to have machine {record.machine} at stop {record.pause}")
    return _reclaimed(record, update.successor)


def woken(record: Record, *, successor: str, gone: InstanceGone) -> Record:
    """The machine in a process that was started from the files in which it waits; only that one may be told to run it.

    Of a released machine that is RECLAIMED. One that this host owns already is followed by another where the process
    before ended before it ran: the files are there until the guest wakes, and the caller has seen them.
    """
    update = update_of(record)
    require_gone(record, gone)
    if update is None or not update.waits or record.run_confirmed:
        raise Refused("no-proof", f"Machine {record.machine} does not wait in files")
    if record.owns:
        return msgspec.structs.replace(record, instance=successor)
    check_transition(record.state, State.RECLAIMED)
    return _reclaimed(record, successor)


def _reclaimed(record: Record, successor: str) -> Record:
    epoch = record.highest_epoch + 1
    return msgspec.structs.replace(
        record,
        state=State.RECLAIMED,
        instance=successor,
        highest_epoch=epoch,
        owned_epoch=epoch,
        secret="",
        run_confirmed=False,
        former_retired=True,
    )
