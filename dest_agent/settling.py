"""What a destination does with an arrival beside filling it: activate it, give it up, own up to having lost it.

Each step is idempotent. The process is looked at before anything is promised on its behalf: an image whose process is
gone never ran and never will, and LOST says so, which gives the machine back to its source. Once ACTIVATING is written
nobody could know that any more.
"""

from collections.abc import Awaitable, Callable

from vm_migration.errors import MigrationError, Refused, Unresolved
from vm_migration.handover.arrival import activating, active, discarded, given_up, lost
from vm_migration.handover.awaiting import Awaited, Step
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import InstanceGone, Process, SideView
from vm_migration.handover.ownership import former_retired, owe_run_state, retired, run_confirmed
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs

Finish = Callable[[], Awaitable[None]]
_log = logs.get(__name__)


async def take_over(custody: Custody, pause: int, secret: bytes) -> int:
    """Activate on the secret; ACTIVE, or LOST where the image is gone, is durable when this returns.

    Returns when the guest had executed on this host's monotonic clock, 0 where it was not started now.

    Raises:
        Unauthorised: The secret is not the attempt's.
        Refused: The machine is not READY at that pause.
        Unresolved: The process went while it was being activated.
        MachineError: The process does not answer; ask again.
    """
    gone = custody.process() is Process.GONE
    if custody.record.state is State.READY and gone:
        await lose(custody, "The machine's process ended before it was handed over")
    if custody.record.state is State.LOST:
        return 0
    await custody.write(lambda record: activating(record, pause=pause, secret=secret))
    if custody.record.state is State.ACTIVE:
        return 0
    if gone:
        raise _nobody_knows(custody.record)
    return await confirm(custody)


async def confirm(custody: Custody) -> int:
    """Start the guest, or leave it paused as it was, and write ACTIVE on the process's own word."""
    record, executed_ns = custody.record, 0
    if record.was_running:
        executed_ns = await custody.port.run(record.epoch)
    else:
        await custody.port.stay_paused(record.epoch)
    answer = await custody.answer()
    await custody.write(lambda last: active(last, process=answer))
    return executed_ns


async def lose(custody: Custody, reason: str) -> None:
    """Write LOST for an image that is gone, and take away what is left of it."""
    await custody.write(lambda last: lost(last, process=InstanceGone(last.instance), reason=reason))
    await custody.take_away(kill=True)


async def end(custody: Custody, source: SideView, reason: str, finish: Finish | None) -> Record:
    """End an arrival on the source's proof, or, for a source that stands STOPPED without a process, say what it is.

    Such a source asks for READY, LOST or DISCARDED: `finish` repeats what it asked for last, where that was the end.

    Raises:
        Refused: The source shows no end, and is not STOPPED: the image is kept.
    """
    if source.sight is State.STOPPED and custody.record.state in (State.PREPARED, State.READY):
        return await _own_up(custody, finish)
    record = await custody.write(lambda last: discarded(last, source=source, reason=reason))
    await free(custody)
    return record


async def follow(custody: Custody, source: SideView, following: Awaited, *, silent: bool = False) -> bool:
    """Do what was decided, of which the journal checks every precondition once more.

    The process is attached, where it lives and is not `silent`. Returns whether the machine became ACTIVE.

    Raises:
        MigrationError: The journal refused it.
        MachineError: The process did not do it; ask again.
    """
    match following.step:
        case Step.GIVE_UP:
            await custody.write(lambda last: given_up(last, reason=following.reason))
            await free(custody)
        case Step.DISCARD:
            await custody.write(lambda last: discarded(last, source=source, reason=following.reason))
            await free(custody, silent=silent)
        case Step.LOSE:
            await lose(custody, following.reason)
        case Step.ACTIVATE:
            await confirm(custody)
            return True
        case Step.RETIRE:
            await _retire(custody, source)
        case Step.NOTE_RETIRED:
            await custody.write(former_retired)
        case Step.CONTRADICTION:
            await stand_still(custody, following.reason)
        case Step.REST | Step.WAIT | Step.OPERATOR:
            pass
    return False


async def free(custody: Custody, *, silent: bool = False) -> None:
    """Take away what the journal has given up: by request, or by its id where nobody is there to be asked."""
    await custody.take_away(kill=silent or custody.process() is Process.GONE)


async def stand_still(custody: Custody, reason: str) -> None:
    """Pause a machine that another host's journal contradicts; nothing is freed.

    A machine that this host owns is owed that pause from here on, so that no restart resumes it.

    Raises:
        MachineError: It is not confirmed that it stands still.
    """
    if custody.record.owns:
        await custody.write(lambda last: owe_run_state(last, running=False, reason=f"contradiction: {reason}"))
    if custody.process() is Process.GONE:
        return
    if (await custody.port.describe()).run_state != "incoming":
        await custody.port.pause(for_attempt=False)
    if custody.record.owns:
        answer = await custody.answer()
        await custody.write(lambda last: run_confirmed(last, answer))


async def require_own_arrival(custody: Custody) -> None:
    """Check that a process that is to stand still here has never run: else this journal is older than the process.

    Raises:
        Refused: It has; nothing may be concluded from this journal, and nothing freed.
        MachineError: It does not answer.
    """
    if custody.record.state in (State.PREPARED, State.READY) and custody.process() is Process.ALIVE:
        seen = await custody.port.describe()
        if seen.run_state != "incoming":
            text = f"The journal of machine {custody.record.machine} says {custody.record.state}, its process is "
            raise Refused("journal-rolled-back", f"{text}{seen.run_state}: the journal was put back", "viaduct doctor")


async def _retire(custody: Custody, source: SideView) -> None:
    """Give way to the host that an operator had take the machine, the source's or another one's."""
    gone = InstanceGone(custody.record.instance) if custody.process() is Process.GONE else None
    if gone is None and (await custody.port.describe()).run_state == "running":
        await custody.port.pause(for_attempt=False)
    await custody.write(lambda last: retired(last, source, gone=gone))
    await free(custody)


async def _own_up(custody: Custody, finish: Finish | None) -> Record:
    if custody.process() is Process.GONE:
        await lose(custody, "The machine's process ended before it was handed over")
        return custody.record
    if custody.record.whole and custody.record.state is State.PREPARED and finish is not None:
        try:
            await finish()
        except (MigrationError, MachineError) as error:
            _log.warning("arrival cannot be finished", machine=custody.record.machine, reason=str(error))
    if custody.record.state is State.PREPARED:
        reason = "The source's machine is gone, and what came of it is not whole"
        await custody.write(lambda last: given_up(last, reason=reason, mismatched=True))
        await free(custody)
    return custody.record


def _nobody_knows(record: Record) -> Unresolved:
    return Unresolved(
        "activation-unknown",
        f"The process of machine {record.machine} ended while it was being activated: nobody can know whether it ran",
        "viaduct recover --fenced HOST --may-miss-writes",
    )
