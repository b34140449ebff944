"""No link carries more than its budget, and nobody could get more but from one that has no more than himself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bandwidth import UNBOUNDED, Flow, shares

HOSTS = st.sampled_from(["a", "b", "c", "d"])
BUDGETS = st.dictionaries(HOSTS, st.integers(1_000, 10_000_000))


@st.composite
def flows(draw: st.DrawFn) -> list[Flow]:
    most = st.one_of(st.just(UNBOUNDED), st.integers(1_000, 10_000_000))
    return [Flow(str(number), draw(HOSTS), draw(HOSTS), draw(most)) for number in range(draw(st.integers(0, 8)))]


@settings(max_examples=200)
@given(running=flows(), budgets=BUDGETS)
def test_nobody_gets_more_than_there_is_or_than_he_asked_for(running: list[Flow], budgets: dict[str, int]) -> None:
    given_to = shares(running, budgets)
    assert given_to.keys() == {one.attempt for one in running}
    for link in {link for one in running for link in one.links if link[0] in budgets}:
        using = [given_to[one.attempt] for one in running if link in one.links]
        assert UNBOUNDED not in using
        assert sum(using) <= budgets[link[0]]
    for one in running:
        assert not one.most or 1 <= given_to[one.attempt] <= one.most


@settings(max_examples=200)
@given(running=flows(), budgets=BUDGETS)
def test_whoever_could_have_more_would_take_it_from_somebody_who_has_no_more(
    running: list[Flow], budgets: dict[str, int]
) -> None:
    given_to = shares(running, budgets)
    for one in running:
        mine = given_to[one.attempt]
        if mine in {UNBOUNDED, one.most}:
            continue
        bottlenecks = []
        for link in (link for link in one.links if link[0] in budgets):
            using = [given_to[other.attempt] for other in running if link in other.links]
            spare = budgets[link[0]] - sum(using)
            bottlenecks.append(spare <= len(using) and mine >= max(using) - 1)  # whole bytes are given
        assert any(bottlenecks)


def test_what_nothing_bounds_is_not_bounded() -> None:
    assert shares([Flow("1", "a", "b")], {}) == {"1": UNBOUNDED}
    assert shares([Flow("1", "a", "b"), Flow("2", "c", "b")], {"a": 1000}) == {"1": 1000, "2": UNBOUNDED}


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([Flow("1", "a", "b"), Flow("2", "a", "c")], {"1": 500, "2": 500}),
        ([Flow("1", "a", "b", 200), Flow("2", "a", "c")], {"1": 200, "2": 800}),
        ([Flow("1", "a", "b"), Flow("2", "b", "a")], {"1": 1000, "2": 1000}),  # each way on its own
        ([Flow("1", "a", "b"), Flow("2", "a", "b"), Flow("3", "a", "b")], {"1": 333, "2": 333, "3": 333}),
    ],
)
def test_a_budget_is_shared_alike(running: list[Flow], expected: dict[str, int]) -> None:
    assert shares(running, {"a": 1000}) == expected


def test_what_one_cannot_use_goes_to_the_others() -> None:
    running = [Flow("slow", "a", "b"), Flow("other", "a", "c"), Flow("third", "d", "b"), Flow("fourth", "d", "b")]
    assert shares(running, {"a": 900, "b": 300}) == {"slow": 100, "third": 100, "fourth": 100, "other": 800}
