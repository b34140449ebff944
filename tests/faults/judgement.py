"""Whether what was observed is what handover.md allows: a pure function. Every complaint is one line."""

from collections.abc import Iterator

from orchestrator.attempt import EXIT_CODES, Outcome
from tests.faults.expected import Ending, expected, outcomes
from tests.faults.expected_updates import expected_of_update
from tests.faults.observation import Observation
from tests.faults.rows import Back, Deed, Row, parse

_RUNS = (Ending.COMPLETED, Ending.STAYED)
_DOCTORS_WORDS = {
    Ending.COMPLETED: "running",
    Ending.STAYED: "running",
    Ending.LOST: "lost",
    Ending.UNRESOLVED: "unresolved",
}
_PROBLEM_FOUND = 8


def judge(seen: Observation) -> list[str]:
    """Return what is not as it must be; nothing is what is hoped for."""
    if seen.broken:
        return [f"the harness failed: {seen.broken}"]
    row = parse(seen.row)
    return [*_safety(row, seen), *_end(row, seen), *_afterwards(row, seen)]


def _safety(row: Row, seen: Observation) -> Iterator[str]:
    yield from (f"double run: {words}" for words in seen.double_runs)
    if not seen.looks:
        yield "nobody looked at the machine's processes"
    if seen.differing_pages:
        slept = "from those of the guest that slept"
        where = slept if row.in_files else "between both hosts where both copies stand still"
        yield f"{seen.differing_pages} pages differ {where}"
    if seen.mismatched:
        yield f"{seen.mismatched} pages were mismatched"
    if seen.guest_errors:
        yield f"the guest counts {seen.guest_errors} errors"
    yield from (f"work was undone: {words}" for words in seen.undone)


def _end(row: Row, seen: Observation) -> Iterator[str]:
    follows = (expected_of_update if row.updates else expected)(row, seen.moments)
    allowed = follows if seen.struck and not seen.missed else frozenset({Ending.COMPLETED})
    if seen.missed:
        yield f"the boundary was missed: {seen.missed}"
    if seen.ending not in allowed:
        yield f"the machine {seen.ending or 'is nowhere'}, expected {' or '.join(sorted(allowed))}; told {seen.outcome}"
        return
    ending = Ending(seen.ending)
    if seen.outcome not in outcomes(row, ending):
        yield f"the machine {ending.value}, and the driver was told {seen.outcome or 'nothing'}"
    if seen.exit_code is not None and seen.outcome and seen.exit_code != EXIT_CODES[Outcome(seen.outcome)]:
        yield f"the command exited with {seen.exit_code} on {seen.outcome}"


def _afterwards(row: Row, seen: Observation) -> Iterator[str]:
    if seen.ending == Ending.UNRESOLVED:
        if seen.settled_by == "itself":
            yield "a machine of which nobody knows whether it ran settled by itself"
    elif seen.settled_by not in ("itself", "recover"):
        yield f"nothing settled it without a guess: {seen.settled_by}"
    yield from _diagnosis(seen)
    if seen.ending == Ending.UNRESOLVED and seen.by_word != "runs":
        yield f"an operator's word did not bring it back: {seen.by_word}"
    if seen.ending in _RUNS or seen.by_word == "runs":
        yield from _second(seen)
    if seen.ending in _RUNS and not seen.works_on:
        yield "the guest runs, and does no work any more"
    yield from (f"left over: {words}" for words in seen.remains)
    if row.deed is Deed.KILL and row.back is Back.NEVER and seen.ending == Ending.BROKEN:
        yield f"the journals say {seen.states}"


def _diagnosis(seen: Observation) -> Iterator[str]:
    found = seen.diagnosis
    if found is None:
        yield "doctor did not answer"
        return
    word = _DOCTORS_WORDS.get(Ending(seen.ending)) if seen.ending in set(Ending) else None
    if word is not None and found.state != word:
        yield f"doctor says that the machine is {found.state or 'nowhere'}, and it is {word}"
    if seen.ending in (Ending.COMPLETED, Ending.STAYED, Ending.LOST) and (found.problems or found.exit_code):
        yield f"doctor finds {', '.join(found.problems)} (exit {found.exit_code}) where all is settled"
    if seen.ending in (Ending.UNRESOLVED, Ending.DIED) and found.exit_code != _PROBLEM_FOUND:
        yield f"doctor finds no problem (exit {found.exit_code}) where the machine {seen.ending}"


def _second(seen: Observation) -> Iterator[str]:
    second = seen.second
    if second is None:
        yield "no second attempt was made"
    elif second.outcome != "completed":
        yield f"the second attempt, to {second.destination}, was {second.outcome or 'not begun'}: {second.error}"
    elif second.pages_mismatched or second.pages_verified != second.pages:
        of = f"{second.pages_verified} of {second.pages} pages, {second.pages_mismatched} mismatched"
        yield f"the second attempt verified {of}"
