"""How far vCPUs and devices are throttled, in which order, and when it is not worth it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.transfer.profiles import BALANCED, GENTLE, PROFILES, URGENT, Profile
from vm_migration.transfer.throttle import Dirtied, Throttle, is_worth_it, raised, stepped
from vmm.guest.vcpu_clock import MOST_PERCENT as MOST_OF_VCPUS
from vmm.vfio.quiesce_slices import MOST_PERCENT as MOST_OF_DEVICES


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


BY_DEVICES = Dirtied(pages=1000, by_devices=950, devices_exceed=True)
BY_BOTH = Dirtied(pages=1000, by_devices=500, devices_exceed=True)
PERCENTS = st.integers(0, 99)
THROTTLES = st.builds(Throttle, st.none() | PERCENTS, st.none() | PERCENTS)


@st.composite
def dirtied(draw: st.DrawFn) -> Dirtied:
    pages = draw(st.integers(0, 1 << 40))
    return Dirtied(pages, draw(st.integers(0, pages)), draw(st.booleans()))


def test_no_profile_allows_more_than_a_machines_process_takes() -> None:
    assert all(profile.throttle_maximum <= MOST_OF_VCPUS for profile in PROFILES.values())
    assert all(profile.device_maximum <= MOST_OF_DEVICES for profile in PROFILES.values())


def test_devices_are_held_by_steps_where_they_alone_dirty_too_much() -> None:
    held, seen = Throttle(0, 0), []
    for _ in range(9):
        held = stepped(held, BY_DEVICES, URGENT)
        seen.append(held.devices)
    assert seen == [20, 30, 40, 50, 60, 70, 80, 80, 80]
    assert held.vcpus == 0


def test_vcpus_come_first_as_long_as_a_step_of_theirs_gains_something() -> None:
    held, seen = Throttle(0, 0), []
    for _ in range(17):
        held = stepped(held, BY_BOTH, URGENT)
        seen.append((held.vcpus, held.devices))
    assert seen[7] == (90, 0)
    assert seen[8] == (90, 20)
    assert seen[-1] == (90, 80)


@pytest.mark.parametrize("profile", [GENTLE, BALANCED])
def test_no_other_profile_holds_a_device(profile: Profile) -> None:
    assert profile.device_maximum == 0
    assert stepped(Throttle(profile.throttle_maximum, 0), BY_DEVICES, profile).devices == 0


@pytest.mark.parametrize(
    ("found", "held"),
    [
        (Dirtied(1000, 950, devices_exceed=False), Throttle(0, 0)),
        (Dirtied(1000, 199, devices_exceed=True), Throttle(90, 0)),
        (Dirtied(0, 0, devices_exceed=True), Throttle(0, 0)),
        (BY_DEVICES, Throttle(0, None)),
    ],
    ids=["what they write fits", "they write little", "nothing is dirtied", "they cannot be held"],
)
def test_devices_are_left_alone_where_they_are_not_what_keeps_it_from_fitting(found: Dirtied, held: Throttle) -> None:
    assert stepped(held, found, URGENT) == held


@given(THROTTLES, dirtied(), st.sampled_from(sorted(PROFILES)))
def test_a_step_raises_one_throttle_at_most_lowers_none_and_asks_nobody_who_cannot(
    held: Throttle, found: Dirtied, name: str
) -> None:
    profile = PROFILES[name]
    after = stepped(held, found, profile)
    assert after.vcpus == held.vcpus or after.devices == held.devices
    for before, now, maximum in (
        (held.vcpus, after.vcpus, profile.throttle_maximum),
        (held.devices, after.devices, profile.device_maximum),
    ):
        assert (before is None) == (now is None)
        if before is not None and now is not None:
            assert before <= now <= max(before, maximum)
