"""An evacuation: which machines are to move, how each of them stands, and which of them moves next. Pure.

::

    waiting -> open (an ordinary attempt of its own, and those that retry it) -> an outcome
       ^         |
       '---------'  refused for what may pass: tried again, later

A restore is the same with the host as everybody's destination. What is written here is enough to go on after a crash:
an attempt's identifier is written before the attempt is entered, so that a machine never gets two.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from orchestrator.attempt import EXIT_CODES, Asked, Attempt, Fault, Outcome
from orchestrator.policy import MigrationPolicy
from orchestrator.queueing import Slots
from orchestrator.retrying import may_pass, never_started, wait_left, wait_seconds

MARK: Final = "ev-"
"""Begins the identifier of every evacuation, and of no attempt."""
MOST_PARALLEL: Final = 64
AHEAD: Final = 4
"""How many more are made ready while others are sent: to check and prepare takes longer than to send."""
_WITH_AHEAD: Final = range(2, 9)
"""Of how many at once that is done: who has one move at a time has one open, and agents take on so many and no more."""
MOST_REFUSALS: Final = 5
"""How often a machine whose attempt is refused for what may pass is tried again."""
USUAL_RETRIES: Final = 2
_INTERNAL: Final = 1
_WORST_FIRST: Final = (_INTERNAL, 6, 7, 4, 3, 5, 0)


class Kind(StrEnum):
    """What is to be done with the machines of the host."""

    EVACUATE = "evacuate"
    RESTORE = "restore"


def new_evacuation_id() -> str:
    """Draw an identifier."""
    return f"{MARK}{uuid.uuid4()}"


def is_evacuation(identifier: str) -> bool:
    """Say whether an identifier, or the start of one, is that of an evacuation."""
    return identifier.startswith(MARK)


def exit_code_of(outcome: Outcome | None, *, internal: bool) -> int:
    """Return the contract's code of how a machine's move ended; of an open one, 0."""
    if internal:
        return _INTERNAL
    return 0 if outcome is None else EXIT_CODES[outcome]


def worst_of(codes: Iterable[int]) -> int:
    """Return the code that a command over many machines exits with; 0 without any."""
    return min(codes, key=_WORST_FIRST.index, default=0)


@dataclass(frozen=True, slots=True)
class Raised:
    """A host that sends (`out`) or takes (`in`) more machines at once for an evacuation than it usually does."""

    host: str
    direction: str
    slots: int
    usual: int


@dataclass(frozen=True, slots=True)
class Move:
    """One machine. `current` is the attempt that is open; `not_before` is in seconds since 1970."""

    machine: str
    name: str
    ram_bytes: int
    destination: str = ""  # of its last attempt; before the first, the one that it must have, if any
    attempts: tuple[str, ...] = ()  # oldest first
    current: str = ""
    refusals: int = 0
    not_before: float = 0.0
    outcome: Outcome | None = None
    internal: bool = False  # it failed by a fault of our own
    error: Fault | None = None
    reason: str = ""

    @property
    def waiting(self) -> bool:
        """Whether it is yet to get an attempt."""
        return self.outcome is None and not self.current

    @property
    def exit_code(self) -> int:
        """The contract's code of how it ended; an open one has 0."""
        return exit_code_of(self.outcome, internal=self.internal)


@dataclass(frozen=True, slots=True)
class Evacuation:
    """All of them. Times are seconds since 1970."""

    evacuation: str
    kind: Kind
    host: str
    moves: tuple[Move, ...]
    created_at: float
    updated_at: float
    to: tuple[str, ...] = ()  # where to; empty: to any host
    parallel: int = 1
    priority: int = 0
    retries: int = USUAL_RETRIES
    policy: MigrationPolicy = field(default_factory=MigrationPolicy)
    asked: Asked = field(default_factory=Asked)
    undoes: str = ""  # the evacuation that a restore undoes
    raised: tuple[Raised, ...] = ()  # the most that was needed of each host beyond what it usually does
    cancel_requested: bool = False
    ended: bool = False
    driver: str = ""
    heartbeat: float = 0.0

    def move(self, machine: str) -> Move:
        """Return a machine's move."""
        return next(one for one in self.moves if one.machine == machine)

    def with_move(self, move: Move) -> "Evacuation":
        """Return the evacuation with this move in the place of the machine's former one."""
        return replace(self, moves=tuple(move if one.machine == move.machine else one for one in self.moves))

    @property
    def done(self) -> float:
        """How much of the machines' memory is of those that have an outcome, 0 to 1."""
        whole = sum(one.ram_bytes for one in self.moves)
        return sum(one.ram_bytes for one in self.moves if one.outcome is not None) / whole if whole else 1.0

    @property
    def outcome(self) -> Outcome | None:
        """How it ended: as the worst of its machines did; None while it goes on."""
        if not self.ended:
            return None
        worst = worst_of(one.exit_code for one in self.moves)
        return next((one.outcome for one in self.moves if one.exit_code == worst), Outcome.COMPLETED)


def startable(plan: Evacuation, now: float) -> tuple[Move, ...]:
    """Return the machines that get an attempt now, in order."""
    if plan.cancel_requested or plan.ended:
        return ()
    free = plan.parallel + ahead_of(plan) - sum(bool(one.current) for one in plan.moves)
    ready = [one for one in plan.moves if one.waiting and not wait_left(one.not_before, now)]
    return tuple(ready[: max(0, free)])


def next_look(plan: Evacuation, now: float, idle: float) -> float:
    """Return in how many seconds to look again, at the latest `idle`: when a machine that was put off may start."""
    return min([idle, *(left for one in plan.moves if one.waiting and (left := wait_left(one.not_before, now)))])


def ahead_of(plan: Evacuation) -> int:
    """Return how many are made ready beside those that move."""
    return AHEAD if plan.parallel in _WITH_AHEAD else 0


def measure_ms(plan: Evacuation) -> int:
    """Return for how long the writes of the machine that is begun next are measured first, in milliseconds.

    As long as was asked for while others are sent. Of the first, as many as are open at once, none is until one has
    arrived: all others wait for them. An attempt that retries another is measured as that was (orchestrator.retrying).
    """
    begun = sum(bool(one.attempts) for one in plan.moves)
    arrived = any(one.attempts and one.outcome is Outcome.COMPLETED for one in plan.moves)
    first = ahead_of(plan) > 0 and begun < plan.parallel + ahead_of(plan) and not arrived
    return 0 if first else plan.asked.measure_ms


def started(move: Move, attempt: str) -> Move:
    """Return a move that is about to get an attempt."""
    return replace(move, current=attempt, attempts=(*move.attempts, attempt), reason="", error=None)


def followed(move: Move, row: Attempt, now: float, fraction: float) -> Move:
    """Return a move as its attempt's row says; `fraction` is a random number between 0 and 1."""
    move = replace(move, destination=row.destination, reason=row.reason)
    if row.retry.next and row.retry.next not in move.attempts:
        return replace(move, current=row.retry.next, attempts=(*move.attempts, row.retry.next))
    if row.outcome is None or row.attempt != move.attempts[-1]:
        return move
    passing = (row.outcome == Outcome.REFUSED and may_pass(row)) or never_started(row)
    if passing and move.refusals < MOST_REFUSALS:
        return put_off(move, row.error, now, fraction)
    return replace(move, current="", outcome=row.outcome, error=row.error)


def put_off(move: Move, error: Fault | None, now: float, fraction: float) -> Move:
    """Return a move whose attempt is tried again later; one that was put off too often is refused."""
    if move.refusals >= MOST_REFUSALS:
        return replace(move, current="", outcome=Outcome.REFUSED, error=error)
    wait = wait_seconds(move.refusals, fraction)
    why = f": {error.message}" if error is not None else ""
    return replace(
        move,
        current="",
        refusals=move.refusals + 1,
        not_before=now + wait,
        error=error,
        reason=f"is tried again in {wait:.1f} s{why}",
    )


def given_up(plan: Evacuation) -> Evacuation:
    """Return a cancelled evacuation: what waits does not start."""
    moves = (
        replace(one, outcome=Outcome.CANCELLED, reason="cancelled before it began") if one.waiting else one
        for one in plan.moves
    )
    return replace(plan, moves=tuple(moves)) if plan.cancel_requested else plan


def closed(plan: Evacuation) -> Evacuation:
    """Return the evacuation, ended where every machine has an outcome."""
    return replace(plan, ended=all(one.outcome is not None for one in plan.moves))


def left_by(plan: Evacuation) -> tuple[Move, ...]:
    """Return the moves of a restore: what the evacuation moved away, to the host that it left."""
    gone = (one for one in plan.moves if one.attempts and one.outcome == Outcome.COMPLETED)
    return tuple(Move(one.machine, one.name, one.ram_bytes, destination=plan.host) for one in gone)


def slots_needed(plan: Evacuation, attempts: Iterable[Attempt]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return how many machines hosts must be allowed to send, and to take, for this evacuation.

    Its own host as many as are to move at once; every other host as many as were given to it, and no more.
    """
    if plan.ended:
        return {}, {}
    own = [one for one in attempts if not one.ended and any(one.attempt in move.attempts for move in plan.moves)]
    sent = _at_once(plan, (one.source for one in own))
    taken = _at_once(plan, (one.destination for one in own))
    if plan.kind is Kind.EVACUATE:
        return {**sent, plan.host: plan.parallel}, taken
    return sent, {**taken, plan.host: plan.parallel}


def _at_once(plan: Evacuation, hosts: Iterable[str]) -> dict[str, int]:
    """Return how many of the open attempts move at once from each host, or to it, at most."""
    return {host: min(count, plan.parallel) for host, count in Counter(hosts).items()}


def noted(plan: Evacuation, attempts: Iterable[Attempt], usual: Slots) -> Evacuation:
    """Return the evacuation with what it needs of hosts noted, and what it needed before."""
    outgoing, incoming = slots_needed(plan, attempts)
    known = {(one.host, one.direction): one for one in plan.raised}
    found = [Raised(host, "out", slots, usual.out_of(host)) for host, slots in outgoing.items()]
    found += [Raised(host, "in", slots, usual.into(host)) for host, slots in incoming.items()]
    for one in found:
        before = known.get((one.host, one.direction))
        if one.slots > (one.usual if before is None else before.slots):
            known[one.host, one.direction] = one
    return replace(plan, raised=tuple(known.values()))
