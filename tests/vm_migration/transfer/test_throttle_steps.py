"""How far vCPUs are throttled, and when it is not worth it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.profiles import GENTLE, PROFILES, URGENT
from vm_migration.transfer.throttle import is_worth_it, raised


def test_the_steps_are_those_of_auto_converge() -> None:
    steps = [0]
    while raised(steps[-1], URGENT.throttle_maximum) != steps[-1]:
        steps.append(raised(steps[-1], URGENT.throttle_maximum))
    assert steps == [0, 20, 30, 40, 50, 60, 70, 80, 90]


@given(st.integers(0, 99), st.sampled_from(sorted(PROFILES)))
def test_a_step_never_falls_and_never_goes_over_what_the_profile_allows(percent: int, name: str) -> None:
    maximum = PROFILES[name].throttle_maximum
    assert percent <= raised(percent, maximum) <= max(percent, maximum)


def test_gentle_takes_nothing() -> None:
    assert raised(0, GENTLE.throttle_maximum) == 0


@pytest.mark.parametrize(
    ("dirtied", "by_devices", "worth"), [(100, 0, True), (100, 80, True), (100, 81, False), (0, 0, False)]
)
def test_vcpus_are_left_alone_where_devices_dirty_nearly_all(dirtied: int, by_devices: int, *, worth: bool) -> None:
    assert is_worth_it(dirtied, by_devices) is worth
