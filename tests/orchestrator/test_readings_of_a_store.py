"""What the orchestrator's metrics say of attempts: each phase and each end once."""

from dataclasses import replace

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.readings import Transitions, attempt_readings
from tests.orchestrator.attempts_to_draw import copying, waiting
from vm_migration.telemetry import gauges
from vm_migration.telemetry.counts import ATTEMPTS_ENDED
from vm_migration.telemetry.distributions import PHASE_TRANSITION


def attempt(number: int, phase: Phase, outcome: Outcome | None = None, *, after: float = 0.0) -> Attempt:
    base = waiting()
    updated_at = base.created_at + after
    return replace(base, attempt=f"a-{number}", phase=phase, outcome=outcome, updated_at=updated_at)


def ended(outcome: Outcome) -> int:
    return ATTEMPTS_ENDED.read().get((outcome.value,), 0)


def test_every_phase_has_a_reading_and_those_that_wait_are_the_queue() -> None:
    rows = [attempt(1, Phase.QUEUED), attempt(2, Phase.QUEUED), copying(), attempt(4, Phase.BEGUN, Outcome.UNRESOLVED)]
    found = {(one.gauge, one.labels): one.value for one in attempt_readings(rows)}
    assert found[gauges.QUEUE_LENGTH, ()] == 2
    assert found[gauges.UNRESOLVED, ()] == 1
    phases = {labels[0]: value for (gauge, labels), value in found.items() if gauge is gauges.ATTEMPTS_IN_PHASE}
    assert (phases["queued"], phases["pre-copy"], phases["begun"], phases["stopping"]) == (2, 1, 1, 0)
    assert not {"completed", "aborted", "lost", "refused"} & phases.keys()


def test_an_end_counts_once_whatever_follows_it() -> None:
    before, noted = ended(Outcome.FAILED), Transitions()
    for row in (attempt(1, Phase.PRE_COPY), attempt(1, Phase.ABORTED, Outcome.FAILED)):
        noted.note(row)
    noted.note(replace(attempt(1, Phase.ABORTED, Outcome.FAILED), reason="a hook failed"))
    assert ended(Outcome.FAILED) == before + 1


def test_what_ends_before_it_begins_counts_too() -> None:
    before, noted = ended(Outcome.REFUSED), Transitions()
    noted.note(attempt(1, Phase.REFUSED, Outcome.REFUSED))
    assert ended(Outcome.REFUSED) == before + 1


def test_a_phase_is_as_long_after_the_entry_as_it_came() -> None:
    def passed() -> tuple[int, float]:
        found = PHASE_TRANSITION.read().get((Phase.VERIFYING.value,))
        return (0, 0.0) if found is None else (found.up_to[-1], found.total)

    count, total = passed()
    Transitions().note(attempt(1, Phase.VERIFYING, after=3.0))
    after, sum_after = passed()
    assert (after, round(sum_after - total, 6)) == (count + 1, 3.0)


def test_as_many_are_remembered_as_may_be_open_and_no_more() -> None:
    noted = Transitions()
    for number in range(10_000):
        noted.note(attempt(number, Phase.QUEUED))
    assert len(noted._phases) == 4096
