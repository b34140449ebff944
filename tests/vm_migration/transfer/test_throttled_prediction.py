"""Where sending alone is not enough: what profiles take from vCPUs, and after how long."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vm_migration.transfer.test_prediction import COSTS, GIB, MIB, POLICY, inputs, loads
from vm_migration.transfer.convergence import ConvergencePolicy, OnTimeout
from vm_migration.transfer.prediction import Inputs, predicted
from vm_migration.transfer.profiles import BALANCED, GENTLE, PROFILES, URGENT, Profile
from vm_migration.transfer.throttled_prediction import predicted_under, presses, throttled

BUSY = inputs(data=4 * GIB, dirty=130 * MIB, span=2 * GIB, link=100 * MIB, spread=0.02)


@given(loads)
@settings(max_examples=60)
def test_profiles_take_the_same_where_sending_is_enough(known: Inputs) -> None:
    plain = predicted(known, POLICY, COSTS)
    for profile in PROFILES.values():
        found = predicted_under(profile, known, POLICY, COSTS)
        if plain.converges:
            assert found == plain
        assert found.total_ms.low <= found.total_ms.likely <= found.total_ms.high


def test_a_throttle_that_is_allowed_and_enough_makes_it_converge_after_a_wait() -> None:
    gentle, balanced, urgent = (predicted_under(each, BUSY, POLICY, COSTS) for each in (GENTLE, BALANCED, URGENT))
    assert (gentle.converges, balanced.converges, urgent.converges) == (False, True, True)
    assert balanced.total_ms.likely > urgent.total_ms.likely + BALANCED.patience_ms - URGENT.patience_ms
    assert urgent.total_ms.likely > gentle.total_ms.likely + URGENT.patience_ms
    assert urgent.downtime_ms.likely <= POLICY.downtime_limit_ms
    assert urgent.rounds.likely > gentle.rounds.likely


def test_the_least_step_that_is_enough_is_waited_for() -> None:
    hard = inputs(data=4 * GIB, dirty=400 * MIB, span=2 * GIB, link=100 * MIB, spread=0.02)
    assert not predicted_under(BALANCED, hard, POLICY, COSTS).converges
    assert predicted_under(URGENT, hard, POLICY, COSTS).converges


def test_a_device_goes_on_while_vcpus_stand() -> None:
    assert not predicted_under(URGENT, replace(BUSY, cpu_share=0.1), POLICY, COSTS).converges
    half = throttled(replace(BUSY, cpu_share=0.5), 80)
    assert half.dirtying.bytes_per_s == pytest.approx(0.6 * BUSY.dirtying.bytes_per_s)


def test_a_wait_that_is_longer_than_the_timeout_helps_nobody() -> None:
    short = ConvergencePolicy(downtime_limit_ms=300, timeout_ms=60_000)
    assert not predicted_under(BALANCED, BUSY, short, COSTS).converges
    forced = replace(short, on_timeout=OnTimeout.FORCE)
    found = predicted_under(BALANCED, BUSY, forced, COSTS)
    assert not found.converges
    assert found.total_ms.likely >= short.timeout_ms
    assert found.downtime_ms.likely > short.downtime_limit_ms


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_steps_rise_to_what_a_profile_allows_and_each_waits_longer(profile: Profile) -> None:
    steps = list(presses(profile))
    assert [percent for percent, _ in steps] == {
        "gentle": [],
        "balanced": [20, 30, 40, 50],
        "urgent": [20, 30, 40, 50, 60, 70, 80, 90],
    }[profile.name]
    waits = [wait.likely for _, wait in steps]
    assert waits == sorted(set(waits))
    assert all(wait.low == wait.likely <= wait.high for _, wait in steps)


@given(loads, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1e6))
@settings(max_examples=60)
def test_taking_from_vcpus_never_dirties_more(known: Inputs, percent: int, share: float, ms: float) -> None:
    held = throttled(replace(known, cpu_share=share), percent)
    for before, after in (
        (known.dirtying.low, held.dirtying.low),
        (known.dirtying.likely, held.dirtying.likely),
        (known.dirtying.high, held.dirtying.high),
    ):
        assert after.after(ms) <= before.after(ms) * (1 + 1e-9)
