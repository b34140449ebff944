"""One attempt as the orchestrator sees it: its phases in order, its outcome, and the record that the store keeps.

::

    queued > preflight > beginning > preparing > begun > pre-copy > stopping > verifying > releasing > handing-over
       |         |           |                                                      |            |         |
       '---------'-----------'-> refused                                            '-> aborted  '---------'-> completed
                                                              (before the release, or taken back)

An update goes from `begun` over `starting`, `switching`, `releasing` and `resuming` to its end.

Any phase may end in `lost`, and any may be left with the outcome `unresolved`, which is not an end: whoever asks both
agents next goes on from there. The phases from `begun` on are the source's own words; a watcher that reconnects may
have missed some, so a phase may jump forward and never goes back.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from orchestrator.policy import MigrationPolicy
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import InternalError, MigrationError


class Phase(StrEnum):
    """Where an attempt stands."""

    QUEUED = "queued"
    PREFLIGHT = "preflight"
    BEGINNING = "beginning"
    PREPARING = "preparing"
    BEGUN = "begun"
    STARTING = "starting"
    PRE_COPY = "pre-copy"
    STOPPING = "stopping"
    SWITCHING = "switching"
    VERIFYING = "verifying"
    RELEASING = "releasing"
    RESUMING = "resuming"
    HANDING_OVER = "handing-over"
    COMPLETED = "completed"
    ABORTED = "aborted"
    LOST = "lost"
    REFUSED = "refused"


class Outcome(StrEnum):
    """How an attempt ended; UNRESOLVED is an answer to the caller, not an end."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNRESOLVED = "unresolved"
    LOST = "lost"


EXIT_CODES: Final = {
    Outcome.COMPLETED: 0,
    Outcome.REFUSED: 3,
    Outcome.FAILED: 4,
    Outcome.CANCELLED: 5,
    Outcome.UNRESOLVED: 6,
    Outcome.LOST: 7,
}
ENDS: Final = frozenset({Phase.COMPLETED, Phase.ABORTED, Phase.LOST, Phase.REFUSED})
PAST_RETURN: Final = frozenset({Phase.RELEASING, Phase.RESUMING, Phase.HANDING_OVER, Phase.COMPLETED})
_ENDS_TOLD: Final = {
    "completed": Phase.COMPLETED,
    "failed": Phase.ABORTED,
    "cancelled": Phase.ABORTED,
    "lost": Phase.LOST,
}
_PHASES: Final = {phase.value: phase for phase in Phase}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_WAY: Final = tuple(phase for phase in Phase if phase not in ENDS)
_BEFORE_SIDE_EFFECTS: Final = frozenset({Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING})


def may_follow(before: Phase, after: Phase) -> bool:
    """Say whether an attempt may go from one phase to another (staying where it is included)."""
    if before == after:
        return True
    if before in ENDS:
        return False
    if after == Phase.REFUSED:
        return before in _BEFORE_SIDE_EFFECTS
    return after in ENDS or _WAY.index(after) > _WAY.index(before)


class IllegalPhase(InternalError):
    """An attempt was asked to go where it cannot go from where it stands."""

    def __init__(self, actual: Phase, required: Phase) -> None:
        super().__init__("illegal-phase", f"An attempt in phase {actual} cannot go to {required}", "Please report this")
        self.actual = actual
        self.required = required


@dataclass(frozen=True, slots=True)
class Notice:
    """A blocker or a warning; `device` is empty when the whole machine is meant."""

    code: str
    message: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt did not complete: a stable code, one line why, one line what to do."""

    code: str
    message: str
    hint: str = ""


def new_attempt_id() -> str:
    """Draw an attempt's UUID."""
    return str(uuid.uuid4())


def blocked(attempt: "Attempt", blockers: tuple[Notice, ...]) -> Fault:
    """Return the fault of an attempt that blockers refuse: the first one's code, everyone's words."""
    see = f"viaduct update {attempt.name} --dry-run" if attempt.asked.update else "viaduct preflight"
    return Fault(blockers[0].code, "; ".join(one.message for one in blockers), f"See all of it: {see}")


def fault_of(error: MigrationError) -> Fault:
    """Return what an error says."""
    return Fault(error.code, error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Event:
    """One transition of an attempt; the sequence starts at 1 and has no gap. `at` is seconds since 1970."""

    attempt: str
    sequence: int
    phase: Phase
    outcome: Outcome | None
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an attempt may be tried again, and what was tried before it. Times are seconds since 1970."""

    left: int = 0
    earlier: tuple[str, ...] = ()  # the attempts before this one, oldest first
    failed_at: tuple[str, ...] = ()  # the destinations that failed, the last one last
    anywhere: bool = False  # any destination will do
    choose: bool = False  # this attempt's destination is yet to be chosen
    not_before: float = 0.0
    since: float = 0.0  # when the first of them was entered
    next: str = ""  # the attempt that tries again after this one
    among: tuple[str, ...] = ()  # the hosts that may be chosen; empty: all


@dataclass(frozen=True, slots=True)
class Asked:
    """What an order said beside its policy, and what was asked for since."""

    measure_ms: int = 0  # for how long the machine's writes are measured before it moves
    by_host: bool = False  # how memory travels is as configured for the destination, whichever that becomes
    update: str = ""  # the mode in which the machine goes on in another process of its host; empty: it migrates
    bandwidth: int | None = None  # bytes a second at most, 0: unlimited, as it was tuned last; None: as the policy says


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything that the store holds of one attempt. Times are seconds since 1970."""

    attempt: str
    machine: str
    name: str
    source: str
    destination: str
    policy: MigrationPolicy
    created_at: float
    updated_at: float
    priority: int = 0
    epoch: int = 0  # 0 until the source has drawn it
    term: int = 1
    phase: Phase = Phase.QUEUED
    outcome: Outcome | None = None
    reason: str = ""
    prepare_ms: float = 0.0
    error: Fault | None = None
    blockers: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()
    expected: types_pb2.Expected | None = field(default=None, hash=False)
    report: source_pb2.AttemptReport | None = field(default=None, hash=False)
    shared_clock: bool = False  # whether both hosts share one monotonic clock
    driver: str = ""
    heartbeat: float = 0.0
    cancel_requested: bool = False
    retry: Retry = Retry()
    asked: Asked = Asked()

    @property
    def bandwidth_wanted(self) -> int:
        """Bytes a second that it is to have at most, as somebody said last; 0: unlimited."""
        return self.policy.max_bandwidth_bytes_per_s if self.asked.bandwidth is None else self.asked.bandwidth

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.phase in ENDS

    def key(self) -> types_pb2.AttemptKey:
        """Return what every mutating call to an agent carries."""
        return types_pb2.AttemptKey(machine=self.machine, attempt=self.attempt, epoch=self.epoch, term=self.term)

    def to(self, phase: Phase, outcome: Outcome | None = None, *, reason: str = "") -> "Attempt":
        """Return the attempt in another phase.

        Raises:
            IllegalPhase: The table of this module does not allow it.
        """
        if not may_follow(self.phase, phase):
            raise IllegalPhase(self.phase, phase)
        return replace(self, phase=phase, outcome=outcome, reason=reason)


def with_report(attempt: Attempt, report: source_pb2.AttemptReport) -> Attempt:
    """Return the attempt as a newer report of its source tells it; an older report changes nothing.

    An outcome of the source ends the attempt; `failed` and `cancelled` end it in `aborted`. An error counts with the
    outcome only: while the source still brings an end about, it tells why already.
    """
    known = attempt.report
    if attempt.ended or (known is not None and report.sequence < known.sequence):
        return attempt
    told = _phase_told(report)
    phase = told if may_follow(attempt.phase, told) else attempt.phase
    error = attempt.error
    if error is None and report.outcome and report.HasField("error") and report.error.code:
        error = Fault(report.error.code, report.error.message, report.error.hint)
    return replace(
        attempt,
        phase=phase,
        outcome=_OUTCOMES.get(report.outcome),
        reason=report.reason,
        epoch=report.key.epoch or attempt.epoch,
        error=error,
        warnings=merged(attempt.warnings, notices(report.warnings)),
        report=report,
    )


def resolved(attempt: Attempt) -> Attempt:
    """Return an attempt that was left unresolved as it stood before: somebody answers now."""
    return replace(attempt, outcome=None, error=None) if attempt.outcome == Outcome.UNRESOLVED else attempt


def _phase_told(report: source_pb2.AttemptReport) -> Phase:
    if (end := _ENDS_TOLD.get(report.outcome)) is not None:
        return end
    phase = _PHASES.get(report.phase, Phase.BEGUN)
    return Phase.BEGUN if phase in ENDS else phase  # an end counts with its outcome only


def merged(first: tuple[Notice, ...], second: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """Return both without repeats, in order."""
    return tuple(dict.fromkeys(first + second))


def notices(messages: Iterable[types_pb2.Blocker]) -> tuple[Notice, ...]:
    """Read blockers or warnings from the wire."""
    return tuple(Notice(one.code, one.message, one.device) for one in messages)
