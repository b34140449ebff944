"""What was observed of one fault, as a value: it travels from the lane that made it to whoever judges and reports."""

import msgspec

from tests.faults.expected import Moment


class SecondAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """What the move after the fault came to."""

    destination: str
    outcome: str
    error: str
    pages: int
    """What RAM holds."""
    pages_verified: int
    pages_mismatched: int


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What `viaduct doctor` said when everything had settled."""

    exit_code: int
    state: str
    """Of the machine; empty where it names none."""
    owner: str
    problems: tuple[str, ...]


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One fault and what came of it. Times are seconds."""

    row: str
    struck: bool = True
    """False where the victim did not exist at a random moment."""
    missed: str = ""
    """Why the boundary was not reached, where it was not."""
    moments: tuple[Moment, ...] = ()
    ending: str = ""
    outcome: str = ""
    """As the driver's store has it; empty where no row ever came."""
    exit_code: int | None = None
    """Of the command, where one drove and was not killed."""
    states: dict[str, list[str]] = {}
    settled_by: str = ""
    """itself, recover, or nothing."""
    settled_s: float = 0.0
    double_runs: tuple[str, ...] = ()
    looks: int = 0
    guest_errors: int = 0
    undone: tuple[str, ...] = ()
    """Where a guest that was updated had done less than before: it went on from an older state."""
    works_on: bool = True
    """The guest did more jobs when all had settled."""
    differing_pages: int = 0
    """Between both hosts' memory, looked at past all agents where both copies stood still."""
    compared: bool = False
    mismatched: int = 0
    """By the attempt's own verification."""
    by_word: str = ""
    """Of a machine that only an operator can decide on: `runs`, or why it does not after he has."""
    diagnosis: Diagnosis | None = None
    second: SecondAttempt | None = None
    remains: tuple[str, ...] = ()
    to_full_rate_s: float | None = None
    to_first_state_s: float | None = None
    took_s: float = 0.0
    broken: str = ""
    """What went wrong with the harness itself."""
    logs: dict[str, str] = {}
    """The tails, where the row is not as it must be."""
