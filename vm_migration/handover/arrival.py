"""What a destination may write: Prepare, ready, activate, and each of the ways in which an attempt ends there.

A READY image is discarded only on the source's durable end of the attempt, never on a timer, on memory pressure or
because somebody says cancel. It activates on the secret and on nothing else. Idempotence and refusals: see ownership.
"""

import msgspec

from vm_migration.errors import InvalidInput, Refused, Stale, Unauthorised
from vm_migration.handover.evidence import Absence, InstanceGone, ProcessAnswer, SideView
from vm_migration.handover.ownership import (
    past_attempts,
    require_answer,
    require_gone,
    require_same_attempt,
    with_term,
)
from vm_migration.handover.record import REASON_LIMIT, AttemptKey, Record
from vm_migration.handover.secret import matches
from vm_migration.handover.states import ARRIVING, IllegalTransition, State, check_transition


def prepared(record: Record | None, key: AttemptKey, *, source: str, secret_hash: bytes, specification: str) -> Record:
    """PREPARED, as the journal's first record or after the last attempt has ended here.

    The same attempt asked again is answered with its state, but DISCARDED is final. Refused while the machine is here,
    while another attempt is open, and at an epoch that is not above every one that this journal has seen.
    """
    if record is not None and record.attempt == key.attempt:
        return _asked_again(record, key)
    if key.epoch <= 0:
        raise InvalidInput("epoch", f"Prepare of machine {key.machine} names no epoch", "Begin at the source first")
    if record is not None:
        _require_free(record, key)
    before = record or Record(machine=key.machine, state=State.PREPARED)
    return msgspec.structs.replace(
        before,
        state=State.PREPARED,
        attempt=key.attempt,
        past_attempts=past_attempts(before),
        epoch=key.epoch,
        highest_epoch=key.epoch,
        term=key.term,
        peer=source,
        secret="",
        secret_hash=secret_hash.hex(),
        pause=0,
        pause_bound_ms=0,
        whole=False,
        was_running=False,
        run_confirmed=False,
        former_retired=False,
        instance="",
        reason="",
        policy="",
        specification=specification,
    )


def _asked_again(record: Record, key: AttemptKey) -> Record:
    if record.state is State.DISCARDED:
        raise Stale("attempt-over", f"Attempt {key.attempt} was discarded here, for good", "Begin a new one")
    if key.epoch != record.epoch:
        raise Stale("stale-epoch", f"Attempt {key.attempt} is at epoch {record.epoch}, not {key.epoch}")
    return with_term(record, key.term)


def _require_free(record: Record, key: AttemptKey) -> None:
    if record.machine != key.machine:
        raise Refused("unknown-machine", f"The journal is of machine {record.machine}, not {key.machine}")
    if not record.closed:
        raise Refused("attempt-open", f"Attempt {record.attempt} of machine {record.machine} is open ({record.state})")
    if record.owns:
        raise Refused("machine-exists", f"Machine {record.machine} is on this host already ({record.state})")
    if key.epoch <= record.highest_epoch:
        raise Stale("stale-epoch", f"Epoch {key.epoch} of {record.machine} is over: {record.highest_epoch} was seen")


def received_whole(record: Record, *, pause: int) -> Record:
    """The whole last delta and the device state are here: from now on the image is kept as a READY one is."""
    if record.state is not State.PREPARED or record.whole:
        require_pause(record, pause)
        return record
    return msgspec.structs.replace(record, whole=True, pause=pause)


class _Noted(msgspec.Struct):
    """What a destination keeps in `policy` while its attempt is open."""

    source_sequence: int = 0


def source_sequence(record: Record) -> int:
    """Return the highest sequence of its source's journal that READY has noted; 0 for none."""
    if record.state not in ARRIVING or not record.policy:
        return 0
    try:
        return msgspec.json.decode(record.policy, type=_Noted).source_sequence
    except msgspec.DecodeError:
        return 0


def ready(record: Record, *, pause: int, was_running: bool, source_sequence: int = 0) -> Record:
    """Loaded and verified; the machine does not run. The highest sequence seen of its source's journal is noted."""
    if record.state is State.READY:
        require_pause(record, pause)
        return record
    check_transition(record.state, State.READY)
    if record.whole:
        require_pause(record, pause)
    noted = msgspec.json.encode(_Noted(source_sequence)).decode() if source_sequence else ""
    return msgspec.structs.replace(
        record, state=State.READY, pause=pause, whole=True, was_running=was_running, policy=noted
    )


def activating(record: Record, *, pause: int, secret: bytes) -> Record:
    """The guest may be started once this is durable, and not before. A repeated Handoff changes nothing."""
    if not matches(secret, bytes.fromhex(record.secret_hash)):
        raise Unauthorised("wrong-secret", f"The secret is not that of attempt {record.attempt}")
    if record.state not in {State.ACTIVATING, State.ACTIVE}:
        check_transition(record.state, State.ACTIVATING)
    require_pause(record, pause)
    if record.state is State.READY:
        return msgspec.structs.replace(record, state=State.ACTIVATING)
    return record


def active(record: Record, *, process: ProcessAnswer) -> Record:
    """The process confirmed that it is in the run state that the attempt owes: this host owns the machine."""
    if record.state is State.ACTIVE:
        return record
    check_transition(record.state, State.ACTIVE)
    require_answer(record, process)
    if process.running != record.was_running:
        raise Refused("process-not-confirmed", f"The process of {record.machine} is not in the run state it is owed")
    return msgspec.structs.replace(record, state=State.ACTIVE, owned_epoch=record.epoch, run_confirmed=True, policy="")


_ENDED_AT_SOURCE = frozenset({State.ABORTED, State.LOST, State.TAKEN, Absence.PASSED, Absence.ABOVE})


def discarded(record: Record, *, source: SideView, reason: str) -> Record:
    """Final for the attempt, on proof: the source's durable ABORTED or LOST, or its journal at a higher epoch.

    A source that stopped the guest has that stop in its journal for ever: one that knows of no such stop has forgotten,
    and its end of the attempt is not that of the image that is here.
    """
    if record.state is State.DISCARDED:
        return record
    check_transition(record.state, State.DISCARDED)
    require_same_attempt(record, source)
    if source.sight not in _ENDED_AT_SOURCE:
        raise Refused("no-proof", f"The source of attempt {record.attempt} is {source.sight}: the image is kept")
    if source.held and record.whole and source.pause < record.pause:
        raise Stale(
            "journal-rolled-back",
            f"The source says {source.sight} as of stop {source.pause}, and stop {record.pause} came here in full: its "
            "journal was put back to an older state",
            "Look at both hosts: viaduct doctor",
        )
    return msgspec.structs.replace(record, state=State.DISCARDED, reason=reason[:REASON_LIMIT], policy="")


def given_up(record: Record, *, reason: str, mismatched: bool = False) -> Record:
    """Final for the attempt, without proof: PREPARED that does not hold the whole last delta, or holds it damaged."""
    if record.state is State.DISCARDED:
        return record
    check_transition(record.state, State.DISCARDED)
    if record.state is not State.PREPARED or (record.whole and not mismatched):
        raise Refused("no-proof", f"Attempt {record.attempt} holds the whole last delta: the image is kept")
    return msgspec.structs.replace(record, state=State.DISCARDED, reason=reason[:REASON_LIMIT], policy="")


_IMAGES_AT_REST: frozenset[State | None] = frozenset({State.PREPARED, State.READY})


def lost(record: Record, *, process: InstanceGone, reason: str) -> Record:
    """The image is gone: it never ran and never will."""
    if record.state is State.LOST:
        return record
    if record.state not in _IMAGES_AT_REST:
        raise IllegalTransition(record.state, _IMAGES_AT_REST, State.LOST)
    require_gone(record, process)
    return msgspec.structs.replace(record, state=State.LOST, reason=reason[:REASON_LIMIT], policy="")


def require_pause(record: Record, pause: int) -> None:
    """Raise unless the caller speaks of the stop whose image is here."""
    if record.pause != pause:
        raise Refused("wrong-pause", f"The image is of stop {record.pause}, the call names stop {pause}")
