"""What a host may write about a machine whether or not an attempt is open: create, owe, confirm, take, retire, destroy.

Every function here, in departure and in arrival takes the journal's last record and returns the next one, or raises a
typed refusal and leaves nothing behind. Asked again for what already stands, it returns the very record it was given:
the caller appends only what `is not` that record. They read no clock and draw nothing.
"""

import msgspec

from vm_migration.errors import Missed, Refused, Stale
from vm_migration.handover.evidence import Absence, InstanceGone, ProcessAnswer, SideView
from vm_migration.handover.record import REASON_LIMIT, AttemptKey, Record
from vm_migration.handover.states import ARRIVING, IllegalTransition, State, check_transition


def create(machine: str, *, instance: str, was_running: bool, specification: str) -> Record:
    """The first record of a new machine: this host owns it at epoch 1 and owes it its first run state."""
    return Record(
        machine=machine,
        state=State.OWNER,
        highest_epoch=1,
        owned_epoch=1,
        instance=instance,
        was_running=was_running,
        specification=specification,
    )


def match(record: Record, key: AttemptKey) -> Record:
    """The record under which a mutating call may act; it is the journal's own unless the term has grown.

    Raises Stale for an older epoch, attempt or term, Missed for an epoch that this host has not seen.
    """
    if key.machine != record.machine:
        raise Refused("unknown-machine", f"The journal is of machine {record.machine}, not {key.machine}")
    if key.epoch > record.highest_epoch:
        raise Missed(
            "missed-epoch",
            f"The call names epoch {key.epoch} of machine {record.machine}; this host has seen {record.highest_epoch}",
            "This host missed something: ask both agents for the attempt's state",
        )
    if key.attempt != record.attempt or key.epoch != record.epoch:
        raise Stale(
            "stale-epoch",
            f"The call names attempt {key.attempt} at epoch {key.epoch}; machine {record.machine} is at attempt "
            f"{record.attempt}, epoch {record.epoch}, {record.state}",
        )
    return with_term(record, key.term)


def with_term(record: Record, term: int) -> Record:
    """The record with the highest term seen for its attempt; raises Stale for a lower one."""
    if term < record.term:
        raise Stale(
            "stale-term", f"Term {term} no longer drives attempt {record.attempt}: term {record.term} took it over"
        )
    return record if term == record.term else msgspec.structs.replace(record, term=term)


def owe_run_state(record: Record, *, running: bool, reason: str = "") -> Record:
    """`machine pause` and `machine resume`: journalled before the process is told; refused while an attempt is open."""
    require_owner(record)
    if record.was_running == running:
        return record
    said = reason[:REASON_LIMIT] or record.reason
    return msgspec.structs.replace(record, was_running=running, run_confirmed=False, reason=said)


def run_confirmed(record: Record, process: ProcessAnswer) -> Record:
    """The process says that it is in the run state that this host owes it; until then Begin is refused."""
    require_owner(record)
    require_answer(record, process)
    if process.running != record.was_running:
        raise Refused("run-state-owed", f"The process of {record.machine} is not in the run state that it is owed")
    return record if record.run_confirmed else msgspec.structs.replace(record, run_confirmed=True)


def bound_to(record: Record, instance: str) -> Record:
    """Name the process started for this journal; refused when another one holds the image already."""
    if record.instance == instance:
        return record
    if record.instance or record.state not in {State.OWNER, State.PREPARED}:
        raise Refused("process-exists", f"Machine {record.machine} has its process {record.instance or 'no longer'}")
    return msgspec.structs.replace(record, instance=instance)


def former_retired(record: Record, *, reason: str = "") -> Record:
    """The former source was seen RETIRED, or an operator vouched for it as fenced, which `reason` says.

    Until then Begin is refused.
    """
    require_owner(record)
    if record.former_retired:
        return record
    return msgspec.structs.replace(record, former_retired=True, reason=reason[:REASON_LIMIT] or record.reason)


def destroyed(record: Record) -> Record:
    """The tombstone of `machine destroy`; it burns an epoch, so that it proves the end of every attempt before it."""
    if record.state is State.DESTROYED:
        return record
    if record.state is not State.LOST:
        require_owner(record)
    check_transition(record.state, State.DESTROYED)
    return msgspec.structs.replace(
        record,
        state=State.DESTROYED,
        attempt=None,
        past_attempts=past_attempts(record),
        highest_epoch=record.highest_epoch + 1,
        secret="",
        instance="",
    )


def taken(record: Record, *, highest_seen: int, process: ProcessAnswer, reason: str) -> Record:
    """An operator's recovery that may miss writes: own the machine at an epoch above any seen anywhere.

    Only a READY destination that starts without the source's release, or a RELEASED source that takes back. The caller
    has the operator's word and an answer from every other host of the site, or its name as one that is off.
    """
    if record.state is State.TAKEN:
        return record
    check_transition(record.state, State.TAKEN)
    require_answer(record, process)
    epoch = max(record.highest_epoch, highest_seen) + 1
    return msgspec.structs.replace(
        record,
        state=State.TAKEN,
        highest_epoch=epoch,
        owned_epoch=epoch,
        secret="",
        run_confirmed=False,
        former_retired=True,
        reason=reason[:REASON_LIMIT],
        policy=_policy_after(record),
    )


def lost_by_word(record: Record, *, highest_seen: int, process: InstanceGone, reason: str) -> Record:
    """An operator's word that no image of the machine is left anywhere, though it may have run here.

    The caller has the proof, or the operator's word, that the source's process is gone too. The record names no attempt
    and stands at an epoch above any seen, as a TAKEN would: a source that comes back retires its copy, and never takes
    this LOST for "it never ran".
    """
    if record.state is State.LOST and record.attempt is None:
        return record
    if record.state is not State.ACTIVATING:
        raise IllegalTransition(record.state, frozenset({State.ACTIVATING}), State.LOST)
    require_gone(record, process)
    epoch = max(record.highest_epoch, highest_seen) + 1
    return msgspec.structs.replace(
        record,
        state=State.LOST,
        attempt=None,
        past_attempts=past_attempts(record),
        highest_epoch=epoch,
        owned_epoch=epoch,
        former_retired=True,
        reason=reason[:REASON_LIMIT],
        policy="",
    )


def retired(record: Record, owner: SideView, *, gone: InstanceGone | None = None, reason: str = "") -> Record:
    """Give the machine up for good; the instance may be freed once this is durable.

    After RELEASED on the destination's ACTIVE; at any time on another host's TAKEN at an epoch above what stands here.
    A copy whose process is proven gone can never run again: it gives way to any TAKEN, and to a destination that has
    retired the attempt for one (ADR 0009).
    """
    if record.state is State.RETIRED:
        return record
    check_transition(record.state, State.RETIRED)
    above = owner.sight in {State.TAKEN, Absence.ABOVE}
    outranked = above and owner.highest_epoch > max(record.owned_epoch, record.epoch)
    arrived = record.state is State.RELEASED and owner.sight is State.ACTIVE and owner.attempt == record.attempt
    dead = gone is not None and owner.sight in {State.TAKEN, State.RETIRED}
    if gone is not None:
        require_gone(record, gone)
    if not outranked and not arrived and not dead:
        raise Refused("no-proof", f"Nothing shows that another host owns {record.machine}: the peer says {owner.sight}")
    return msgspec.structs.replace(
        record,
        state=State.RETIRED,
        highest_epoch=max(record.highest_epoch, owner.highest_epoch),
        secret="",
        reason=reason[:REASON_LIMIT],
        policy=_policy_after(record),
    )


def _policy_after(record: Record) -> str:
    """A source's terms are kept, to be told by; what a destination notes there ends with its attempt."""
    return "" if record.state in ARRIVING else record.policy


def past_attempts(record: Record) -> tuple[str, ...]:
    """The attempts that a late Begin must not start again, the record's own included."""
    return (*record.past_attempts, record.attempt)[-16:] if record.attempt else record.past_attempts


def require_owner(record: Record) -> None:
    """Raise unless this host owns the machine and no attempt is open; the refusal names the attempt."""
    if not record.closed:
        raise Refused(
            "attempt-open",
            f"Attempt {record.attempt} of machine {record.machine} is open ({record.state}, with {record.peer})",
            f"Wait for it, or: viaduct cancel {record.attempt}",
        )
    if not record.owns:
        raise Refused("not-owner", f"This host does not own machine {record.machine}: its journal says {record.state}")


def require_answer(record: Record, process: ProcessAnswer) -> None:
    """Raise unless the answer is of the journalled instance, with this journal's controller attached to it."""
    if process.instance != record.instance:
        raise Refused("process-not-confirmed", f"The answer is of another process than that of {record.machine}")
    if process.controller != record.controller:
        raise Stale(
            "stale-controller",
            f"Controller {process.controller} is attached to {record.machine}, the journal's is {record.controller}",
        )


def require_gone(record: Record, process: InstanceGone) -> None:
    """Raise unless the instance proven gone is the journalled one."""
    if not record.instance or process.instance != record.instance:
        raise Refused("process-not-confirmed", f"The process proven gone is not that of {record.machine}")


def require_same_attempt(record: Record, peer: SideView) -> None:
    """Raise unless the peer's view answers a question about the record's attempt."""
    if peer.attempt != record.attempt:
        raise Refused("no-proof", f"The peer speaks of attempt {peer.attempt}, the journal of {record.attempt}")
