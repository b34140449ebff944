"""What a source may write: Begin, stop, release, and each of the ways in which an attempt ends there.

Before RELEASED the source can always take the machine back, by ABORTED, durable before the guest resumes. After it the
source never runs the machine, except through RECLAIMED. Idempotence and refusals: see ownership.
"""

import msgspec

from vm_migration.errors import Missed, Refused, Stale
from vm_migration.handover.evidence import Absence, InstanceGone, ProcessAnswer, SideView
from vm_migration.handover.ownership import (
    past_attempts,
    require_answer,
    require_gone,
    require_owner,
    require_same_attempt,
    with_term,
)
from vm_migration.handover.record import REASON_LIMIT, AttemptKey, Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import LEAVING, IllegalTransition, State, check_transition


def pause_bound_ms(downtime_limit_ms: int) -> int:
    """How long a stop may last without READY before it is aborted."""
    return max(3 * downtime_limit_ms, 1_000)


def forced_pause_bound_ms(expected_standstill_ms: int) -> int:
    """The same under `force`, from the standstill expected at the pause."""
    return max(3 * expected_standstill_ms, 10_000)


def begin(
    record: Record, key: AttemptKey, *, destination: str, was_running: bool, secret: bytes, policy: str
) -> Record:
    """OUTGOING at the highest epoch seen + 1; the same attempt asked again is answered with what it came to.

    Refused while another attempt is open, while the process has not confirmed the run state that the last attempt owes
    it (`was_running` is read only after that), and at a new owner until its former source is RETIRED or fenced.
    """
    if record.attempt == key.attempt:
        return _asked_again(record, key)
    require_owner(record)
    epoch = record.highest_epoch + 1
    if key.attempt in record.past_attempts or 0 < key.epoch < epoch:
        raise Stale("attempt-over", f"Attempt {key.attempt} of machine {record.machine} is over", "Begin a new one")
    if key.epoch > epoch:
        raise Missed("missed-epoch", f"Epoch {key.epoch} is beyond {epoch}, the next one of {record.machine} here")
    if not record.former_retired:
        raise Refused(
            "former-source-open",
            f"The former source of machine {record.machine} has not retired its copy yet",
            "Bring that host back, or: viaduct recover --fenced HOST",
        )
    if not record.run_confirmed or not record.instance:
        raise Refused("run-state-owed", f"The process of {record.machine} has not confirmed the run state it is owed")
    return msgspec.structs.replace(
        record,
        state=State.OUTGOING,
        attempt=key.attempt,
        past_attempts=past_attempts(record),
        epoch=epoch,
        highest_epoch=epoch,
        term=key.term,
        peer=destination,
        secret=secret.hex(),
        secret_hash=secret_hash(secret).hex(),
        pause_bound_ms=0,
        whole=False,
        was_running=was_running,
        run_confirmed=False,
        reason="",
        policy=policy,
    )


def _asked_again(record: Record, key: AttemptKey) -> Record:
    if key.epoch not in {0, record.epoch}:
        raise Stale("stale-epoch", f"Attempt {key.attempt} is at epoch {record.epoch}, not {key.epoch}")
    return with_term(record, key.term)


def stopped(record: Record, *, pause: int, bound_ms: int) -> Record:
    """The guest and its devices have stopped; `pause` is above every earlier one."""
    if record.state is State.STOPPED and record.pause == pause:
        return record
    check_transition(record.state, State.STOPPED)
    if record.state is State.STOPPED or pause <= record.pause:
        raise Stale("wrong-pause", f"Stop {pause} of machine {record.machine} is not above stop {record.pause}")
    return msgspec.structs.replace(record, state=State.STOPPED, pause=pause, pause_bound_ms=bound_ms)


def released(record: Record, *, destination: SideView, process: ProcessAnswer | InstanceGone) -> Record:
    """The point of no return; the secret may leave the source once this is durable, and not before.

    Only in STOPPED, with a READY of that same pause, and with the process confirmed at this moment to be stopped at it,
    or its instance proven gone.
    """
    if record.state is State.RELEASED:
        return record
    check_transition(record.state, State.RELEASED)
    require_same_attempt(record, destination)
    if destination.sight is not State.READY or destination.pause != record.pause:
        raise Refused(
            "wrong-pause",
            f"The destination is {destination.sight} at stop {destination.pause}, the source stands at {record.pause}",
        )
    if isinstance(process, InstanceGone):
        require_gone(record, process)
    else:
        require_answer(record, process)
        if process.running or process.pause != record.pause:
            raise Refused("process-not-confirmed", f"The process of {record.machine} is not at stop {record.pause}")
    return msgspec.structs.replace(record, state=State.RELEASED, released_epoch=record.epoch)


def aborted(record: Record, *, reason: str, process: ProcessAnswer | None = None) -> Record:
    """The attempt ends here; durable before the guest resumes or a discard is sent.

    In STOPPED only on the process's answer that it is alive and attached to this controller: with its instance gone,
    only RELEASED or LOST can follow. The run state is owed from then on.
    """
    if record.state is State.ABORTED:
        return record
    check_transition(record.state, State.ABORTED)
    if process is not None:
        require_answer(record, process)
    elif record.state is State.STOPPED:
        raise Refused("process-not-confirmed", f"The process of {record.machine} has not confirmed that it is alive")
    return msgspec.structs.replace(
        record, state=State.ABORTED, secret="", run_confirmed=False, reason=reason[:REASON_LIMIT]
    )


def reclaimed(record: Record, *, destination: SideView, process: ProcessAnswer) -> Record:
    """Own the machine again at a new epoch: the destination is LOST, never ran and never will."""
    if record.state is State.RECLAIMED:
        return record
    check_transition(record.state, State.RECLAIMED)
    require_same_attempt(record, destination)
    require_answer(record, process)
    if destination.sight is not State.LOST:
        raise Refused("no-proof", f"The destination of {record.machine} is {destination.sight}, not LOST")
    epoch = record.highest_epoch + 1
    return msgspec.structs.replace(
        record,
        state=State.RECLAIMED,
        highest_epoch=epoch,
        owned_epoch=epoch,
        secret="",
        run_confirmed=False,
        former_retired=True,
    )


_SOURCES: frozenset[State | None] = LEAVING | {State.ABORTED, State.RECLAIMED}
_ENDED_AT_DESTINATION = {
    State.STOPPED: frozenset({State.DISCARDED, State.LOST, Absence.PASSED}),
    State.RELEASED: frozenset({State.LOST}),
}


def lost(record: Record, *, process: InstanceGone, destination: SideView | None, reason: str) -> Record:
    """The source's process is gone, and where a whole copy may be at the destination, it is known not to be."""
    if record.state is State.LOST:
        return record
    if record.state not in _SOURCES:
        raise IllegalTransition(record.state, _SOURCES, State.LOST)
    require_gone(record, process)
    needed = _ENDED_AT_DESTINATION.get(record.state)
    if needed is not None:
        if destination is None or destination.sight not in needed:
            raise Refused("no-proof", f"The destination of {record.machine} may hold the only whole copy")
        require_same_attempt(record, destination)
    return msgspec.structs.replace(record, state=State.LOST, secret="", reason=reason[:REASON_LIMIT])
