"""What a store of attempts does, whichever keeps them: every method is one transaction that happens wholly or not.

Several processes use one store at once, each driving its own attempts. Methods are short, block, and may be called from
any thread. Times are passed in, as seconds since 1970. A store that cannot be used for a while refuses every method
with `store-unusable`; the same call may then be made again, whether or not it happened.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from orchestrator.attempt import Asked, Attempt, Event, Outcome, Phase
from orchestrator.store.entries import Entries
from vm_migration.errors import InvalidInput, Refused

TAKEN_OVER: Final = "attempt-taken-over"
STORE_UNUSABLE: Final = "store-unusable"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Where a machine lives."""

    machine: str
    name: str
    host: str
    epoch: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Something that is yet to be published: an event or state of an attempt, or the owner of a machine."""

    number: int
    kind: str  # event | state | owner
    subject: str  # the attempt's or the machine's UUID
    sequence: int  # of the event; 0 otherwise


@dataclass(frozen=True, slots=True)
class OpenRow:
    """What is looked at often of an open attempt; the whole of it takes a hundred times as long to read."""

    attempt: str
    source: str
    destination: str
    phase: Phase
    outcome: Outcome | None
    driver: str
    term: int
    heartbeat: float
    cancel_requested: bool
    asked: Asked


class Store(Protocol):
    """Attempts, owners, events, and what is yet to be published of them."""

    @property
    def entries(self) -> Entries:
        """What outlives a driver beside attempts."""

    # attempts

    def open_attempt(self, attempt: Attempt) -> Attempt:
        """Enter a new attempt; asked twice, answer with its row.

        Raises:
            Refused: Another attempt of this machine is open: code `attempt-open`, with its holder.
        """

    def claim(self, attempt_id: str, driver: str, now: float, *, sole: bool = False) -> Attempt:
        """Take the right to drive an attempt, with its next term where it had a driver, and tell how it stands.

        With `sole`, no other daemon drives: what stands under a daemon's name was left (orchestrator.store.claim).

        Raises:
            InvalidInput: No such attempt.
            Refused: It has ended, or another driver's heartbeat is fresh.
        """

    def claim_all(self, attempts: Sequence[str], driver: str, now: float, *, sole: bool = False) -> tuple[Attempt, ...]:
        """Claim many, as `claim`, and return those that this driver drives now: not who has ended or is held.

        Some may be claimed where this raises.
        """

    def heartbeat(self, attempt: Attempt, now: float) -> Attempt:
        """Renew a claim and return the row as it stands, a wish to cancel included.

        Raises:
            Stale: Somebody else has taken the attempt over.
        """

    def renew(self, attempts: Sequence[Attempt], now: float) -> frozenset[str]:
        """Renew many claims, and write what their sources have told since; return those that somebody else has taken.

        A report counts where the row was written before it came. Some may be renewed where this raises.
        """

    def save(
        self, attempt: Attempt, now: float, *, owner: Ownership | None = None, successor: Attempt | None = None
    ) -> Attempt:
        """Write an attempt that this driver holds; a new phase or outcome is an event and leaves through the outbox.

        With an owner, where the machine lives is written with it, unless a higher epoch is known. With a successor, the
        attempt that tries again after this one, which ends, is entered with it, unless it has been already.

        Raises:
            Stale: Somebody else has taken the attempt over.
            IllegalPhase: The row stands where the new phase cannot follow.
        """

    def let_go(self, attempt: Attempt) -> None:
        """Give a claim back without ending the attempt; the next driver takes the next term."""

    def request_cancel(self, attempt_id: str) -> Attempt:
        """Leave a wish to cancel for whoever drives.

        Raises:
            InvalidInput: No such attempt.
        """

    def request_bandwidth(self, attempt_id: str, bytes_per_s: int) -> Attempt:
        """Leave a wish for bandwidth, 0 for as much as there is, for whoever drives.

        Raises:
            InvalidInput: No such attempt.
        """

    def get(self, attempt_id: str) -> Attempt:
        """Return an attempt.

        Raises:
            InvalidInput: No such attempt.
        """

    def has(self, attempt_id: str) -> bool:
        """Say whether an attempt is known."""

    def find(self, start: str) -> Attempt:
        """Return the one attempt whose identifier starts so.

        Raises:
            InvalidInput: None does, or several do.
        """

    def attempts(self, *, everything: bool = False, limit: int = 1000) -> tuple[Attempt, ...]:
        """Return every open attempt, and with `everything` the `limit` newest of those that ended; newest first."""

    def standing(self, since: float) -> tuple[Attempt, ...]:
        """Return every open attempt, and those that ended after a time, newest first."""

    def open_rows(self) -> tuple[OpenRow, ...]:
        """Return what is looked at often of every open attempt, in any order."""

    def open_attempt_of(self, machine: str) -> Attempt | None:
        """Return a machine's open attempt."""

    def events(self, attempt_id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Return an attempt's events past a sequence number, in order."""

    def with_events(self, attempts: Collection[str]) -> Mapping[str, tuple[Attempt, Sequence[Event]]]:
        """Return those attempts that are known, each with its events; none is newer than the attempt."""

    def prune(self, before: float) -> int:
        """Forget attempts that ended before a time and are published; return how many.

        A store may forget some now and the rest at a later call.
        """

    # owners

    def record_owner(self, owner: Ownership, driver: str) -> bool:
        """Write where a machine lives, unless a higher epoch is known; say whether this one stands."""

    def owners(self) -> tuple[Ownership, ...]:
        """Return where every known machine lives."""

    def owner_of(self, machine: str) -> Ownership | None:
        """Return where a machine lives, where that is known."""

    # outbox

    def pending(self, driver: str, limit: int) -> Sequence[OutboxRow]:
        """Return what this driver has yet to publish, oldest first.

        States and owners are told as they stand when they are: one entry may stand for several changes.
        """

    def acknowledge(self, driver: str, number: int) -> None:
        """Forget this driver's outbox up to a number: the broker has it."""

    def adopt_outbox(self, driver: str, now: float, silence: float) -> None:
        """Take over what drivers left unpublished that have no open attempt with a heartbeat within a silence."""

    def close(self) -> None:
        """Let go of the store; what was committed stays."""


def unknown_attempt(attempt_id: str) -> InvalidInput:
    """Return the error for an identifier that fits no attempt."""
    return InvalidInput("unknown-attempt", f'No attempt "{attempt_id}" is known', "See them all: viaduct list --all")


def only_match(start: str, found: Sequence[Attempt]) -> Attempt:
    """Return the one attempt whose identifier starts so, of the first two that do.

    Raises:
        InvalidInput: None does, or several do.
    """
    if not found or not start:
        raise unknown_attempt(start)
    if len(found) > 1:
        raise InvalidInput("ambiguous-attempt", f'Several attempts start with "{start}"', "Give more of it")
    return found[0]


def attempt_open(attempt: Attempt, holder: str, driver: str) -> Refused:
    """Return the error for a machine that has an open attempt."""
    return Refused(
        "attempt-open",
        f"Attempt {holder} of {attempt.name} is open, held by {driver or 'nobody'}",
        f"Wait for its end (viaduct watch {holder}) or cancel it (viaduct cancel ...)",
    )
