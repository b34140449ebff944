"""Rounds are held in bounded memory, and neither a decision nor a reader of reports misses anything by it."""

from functools import reduce
from itertools import cycle

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.convergence import (
    ConvergencePolicy,
    RoundMeasurement,
    Situation,
    StandstillCosts,
    decide,
)
from vm_migration.transfer.round_log import MOST_RECENT, MOST_TOLD, RoundLog

COSTS = StandstillCosts(50.0, 4096, 1e9)
TERMS = ConvergencePolicy(300.0, 600_000.0)


def measured(number: int, dirty: int = 100, ms: float = 2.0) -> RoundMeasurement:
    return RoundMeasurement(
        round=number,
        dirty_pages=dirty,
        sent_pages=dirty,
        zero_pages=0,
        wire_bytes=dirty * 4096,
        ms=ms,
        dirtied_pages=dirty // 2,
    )


def logged(rounds: list[RoundMeasurement]) -> RoundLog:
    return reduce(RoundLog.closing, rounds, RoundLog())


def thinned(count: int) -> list[int]:
    """Say which of so many rounds are told, by the rule instead of step by step."""
    stride = next(1 << power for power in range(64) if len(range(0, count, 1 << power)) < MOST_TOLD)
    return sorted({*range(0, count, stride), *range(max(0, count - 1), count)})


@given(st.integers(0, 3000))
def test_a_report_tells_the_first_the_last_and_evenly_spaced_rounds(count: int) -> None:
    log = logged([measured(number) for number in range(count)])
    assert [one.measured.round for one in log.told] == thinned(count)
    assert len(log.told) <= MOST_TOLD
    assert log.closed == count
    if count < MOST_TOLD:
        assert len(log.told) == count


def test_many_rounds_are_held_in_few() -> None:
    log = logged([measured(number) for number in range(50_000)])
    assert (len(log.told), log.closed, log.stride) == (197, 50_000, 256)
    assert (log.told[0].measured.round, log.told[-1].measured.round) == (0, 49_999)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=600))
def test_a_told_round_stands_where_it_ended(spans: list[float]) -> None:
    log = logged([measured(number, ms=ms) for number, ms in enumerate(spans)])
    ends: dict[int, float] = {}
    elapsed = 0.0
    for number, ms in enumerate(spans):
        elapsed += ms
        ends[number] = elapsed
    assert all(one.ended_ms == ends[one.measured.round] for one in log.told)


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.floats(0.01, 300.0)), min_size=1, max_size=20),
    st.integers(1, 3 * MOST_RECENT),
)
def test_a_decision_is_the_same_from_what_is_held_as_from_all(rounds: list[tuple[int, float]], count: int) -> None:
    history = [measured(number, *one) for number, one in zip(range(count), cycle(rounds), strict=False)]
    log = logged(history)
    assert list(log.recent) == history[-MOST_RECENT:]
    for elapsed_ms in (1.0, TERMS.timeout_ms):
        of_all = decide(Situation(history, 0, elapsed_ms), TERMS, COSTS)
        assert decide(Situation(log.recent, 0, elapsed_ms), TERMS, COSTS) == of_all
