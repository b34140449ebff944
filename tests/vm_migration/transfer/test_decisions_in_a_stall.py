"""What a stall, a profile, a network that drops and a bandwidth that was lowered make of the decision."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.convergence import (
    Continue,
    ConvergencePolicy,
    Decision,
    RoundMeasurement,
    Situation,
    StandstillCosts,
    SwitchOver,
    decide,
)
from vm_migration.transfer.profiles import BALANCED, GENTLE, PROFILES, URGENT, Profile
from vm_migration.transfer.stall import Stall, StallWatch

MIB = 1 << 20
RATE = 100 * MIB
COSTS = StandstillCosts(fixed_ms=50, device_state_bytes=0, hash_bytes_per_s=1 << 30)


def measured(sent_mib: float, left_mib: float, rate: float = RATE, *, dma: float = 0.0) -> RoundMeasurement:
    sent, left = int(sent_mib * 256), int(left_mib * 256)
    return RoundMeasurement(
        round=0,
        dirty_pages=sent,
        sent_pages=sent,
        zero_pages=0,
        wire_bytes=sent * 4096,
        ms=sent * 4096 * 1000 / rate,
        dirtied_pages=left,
        dma_dirtied_pages=int(left * dma),
    )


def stalled(left_mib: float, target_mib: float, *, presses: bool = False) -> StallWatch:
    stall = Stall(int(target_mib * MIB), (), window_ms=1000, until_ms=1e9)
    return StallWatch((), int(left_mib * MIB), stall, presses)


def decided(
    *history: RoundMeasurement,
    stalls: StallWatch,
    profile: Profile = URGENT,
    held: int | None = 0,
    held_devices: int | None = None,
    bandwidth: int = 0,
    costs: StandstillCosts = COSTS,
) -> Decision:
    situation = Situation(
        history,
        unhashed_bytes=0,
        elapsed_ms=0,
        stalls=stalls,
        throttle_percent=held,
        device_throttle_percent=held_devices,
    )
    return decide(
        situation, ConvergencePolicy(300, 600_000, profile=profile, max_bandwidth_bytes_per_s=bandwidth), costs
    )


def test_in_a_stall_a_local_minimum_that_fits_is_taken_though_what_is_left_still_falls() -> None:
    """From 40 MiB to 20 is no promise of 10 where the rounds go up and down: the next may be above the limit again."""
    falling = (measured(60, 40), measured(40, 20))
    assert isinstance(decided(*falling, stalls=StallWatch()), Continue)
    assert isinstance(decided(*falling, stalls=stalled(20, 20)), SwitchOver)
    assert isinstance(decided(*falling, stalls=stalled(20, 15)), Continue)


def test_in_a_stall_nothing_over_the_limit_is_taken_however_small_it_is_among_the_others() -> None:
    assert isinstance(decided(measured(60, 40), measured(40, 40), stalls=stalled(40, 40)), Continue)


@pytest.mark.parametrize(("profile", "percent"), [(GENTLE, 0), (BALANCED, 20), (URGENT, 20)])
def test_where_nothing_fits_a_window_of_the_stall_is_a_step_of_the_throttle(profile: Profile, percent: int) -> None:
    rounds = (measured(60, 40), measured(40, 40))
    pressed = decided(*rounds, stalls=stalled(40, 40, presses=True), profile=profile)
    assert isinstance(pressed, Continue)
    assert pressed.throttle_percent == percent
    between = decided(*rounds, stalls=stalled(40, 40), profile=profile)
    assert isinstance(between, Continue)
    assert between.throttle_percent == 0


def test_what_was_taken_stays_taken_between_steps_and_is_never_asked_of_who_cannot() -> None:
    rounds = (measured(60, 40), measured(40, 40))
    for stalls in (StallWatch(), stalled(40, 40)):
        held = decided(*rounds, stalls=stalls, held=40)
        assert isinstance(held, Continue)
        assert held.throttle_percent == 40
    for asked, percent in ((40, 50), (None, 0)):
        pressed = decided(*rounds, stalls=stalled(40, 40, presses=True), held=asked)
        assert isinstance(pressed, Continue)
        assert pressed.throttle_percent == percent


def test_vcpus_do_not_pay_for_a_drop_of_the_network_nor_for_a_device() -> None:
    dropped = (measured(60, 40), measured(60, 40), measured(40, 400, RATE / 20))
    device = (measured(60, 40), measured(40, 40, dma=0.9))
    for rounds in (dropped, device):
        pressed = decided(*rounds, stalls=stalled(400, 400, presses=True))
        assert isinstance(pressed, Continue)
        assert pressed.throttle_percent == 0


@pytest.mark.parametrize(
    ("rounds", "profile", "expected"),
    [
        ((measured(60, 40), measured(40, 40, dma=0.9)), URGENT, (0, 20)),
        ((measured(60, 40), measured(40, 40, dma=0.9)), BALANCED, (0, 0)),
        ((measured(60, 40), measured(40, 40, dma=0.9)), GENTLE, (0, 0)),
        ((measured(60, 40), measured(40, 40, dma=0.7)), URGENT, (20, 0)),
        ((measured(60, 26), measured(26, 26, dma=0.85)), URGENT, (0, 0)),
        ((measured(60, 40), measured(60, 40), measured(40, 400, RATE / 20, dma=1)), URGENT, (0, 0)),
    ],
    ids=["devices alone", "balanced", "gentle", "vCPUs too", "what devices write fits", "a drop of the link"],
)
def test_devices_are_held_where_they_alone_keep_it_from_fitting(
    rounds: tuple[RoundMeasurement, ...], profile: Profile, expected: tuple[int, int]
) -> None:
    left = rounds[-1].dirtied_pages / 256
    pressed = decided(*rounds, stalls=stalled(left, left, presses=True), profile=profile, held_devices=0)
    assert isinstance(pressed, Continue)
    assert (pressed.throttle_percent, pressed.device_throttle_percent) == expected


def test_devices_come_after_the_last_step_of_the_vcpus_and_stay_held_between_steps() -> None:
    rounds = (measured(60, 60), measured(60, 60, dma=0.5))
    pressed = decided(*rounds, stalls=stalled(60, 60, presses=True), held=90, held_devices=30)
    between = decided(*rounds, stalls=stalled(60, 60), held=90, held_devices=40)
    for decision in (pressed, between):
        assert isinstance(decision, Continue)
        assert (decision.throttle_percent, decision.device_throttle_percent) == (90, 40)


def test_devices_that_cannot_be_held_or_are_not_what_exceeds_the_limit_are_not_asked() -> None:
    rounds = (measured(60, 40), measured(40, 40, dma=1))
    state_too_large = StandstillCosts(fixed_ms=50, device_state_bytes=40 * MIB, hash_bytes_per_s=1 << 30)
    for held_devices, costs in ((None, COSTS), (0, state_too_large)):
        pressed = decided(*rounds, stalls=stalled(40, 40, presses=True), held_devices=held_devices, costs=costs)
        assert isinstance(pressed, Continue)
        assert pressed.device_throttle_percent == 0


def test_a_bandwidth_that_was_lowered_counts_before_a_round_has_measured_it() -> None:
    rounds = (measured(60, 10), measured(10, 10))
    assert isinstance(decided(*rounds, stalls=StallWatch()), SwitchOver)
    assert isinstance(decided(*rounds, stalls=StallWatch(), bandwidth=20 * MIB), Continue)
    assert isinstance(decided(*rounds, stalls=StallWatch(), bandwidth=80 * MIB), SwitchOver)


def test_a_bandwidth_counts_bytes_of_the_wire_and_what_is_left_pages() -> None:
    """Pages that shrink to a third get through a limit three times as fast."""
    sent = 30 * 256
    shrunk = RoundMeasurement(
        round=0, dirty_pages=sent, sent_pages=sent, zero_pages=0, wire_bytes=10 * MIB, ms=300.0, dirtied_pages=10 * 256,
        compressed_pages=sent,
    )  # fmt: skip
    decision = decided(shrunk, stalls=StallWatch(), bandwidth=20 * MIB)
    expected = COSTS.fixed_ms + 10 / 60 * 1000
    assert isinstance(decision, Continue | SwitchOver)
    assert decision.standstill_ms == pytest.approx(expected)


@given(
    st.lists(
        st.builds(measured, st.floats(0, 2048), st.floats(0, 2048), st.floats(1, 1e10), dma=st.floats(0, 1)),
        min_size=1,
        max_size=6,
    ),
    st.builds(stalled, st.floats(0, 2048), st.floats(0, 2048), presses=st.booleans()),
    st.sampled_from(sorted(PROFILES)),
    st.tuples(st.none() | st.integers(0, 99), st.none() | st.integers(0, 80)),
    st.integers(0, 1 << 33),
)
@settings(max_examples=300)
def test_no_stall_profile_or_throttle_excuses_a_standstill_over_the_limit(
    history: list[RoundMeasurement],
    stalls: StallWatch,
    profile: str,
    throttles: tuple[int | None, int | None],
    bandwidth: int,
) -> None:
    allowed, (held, held_devices) = PROFILES[profile], throttles
    decision = decided(
        *history, stalls=stalls, profile=allowed, held=held, held_devices=held_devices, bandwidth=bandwidth
    )
    if isinstance(decision, SwitchOver):
        assert decision.standstill_ms <= 300
        last = history[-1]
        if bandwidth and last.wire_bytes:
            assert decision.standstill_ms >= 50 + last.dirtied_pages * 4096 * 1000 / bandwidth - 1e-6
    if isinstance(decision, Continue):
        assert (held or 0) <= decision.throttle_percent <= max(held or 0, allowed.throttle_maximum)
        before = held_devices or 0
        assert before <= decision.device_throttle_percent <= max(before, allowed.device_maximum)


@given(st.lists(st.floats(1, 400), min_size=2, max_size=8), st.floats(1.1, 20), st.booleans())
@settings(max_examples=200)
def test_a_slower_link_never_makes_the_moment_to_stop(lefts: list[float], slower: float, pressed: bool) -> None:
    """The same last round over a slower link left at least as much; whatever did not fit before does not now."""
    *earlier, last = (measured(before, after) for before, after in itertools.pairwise(lefts))
    slow = measured(lefts[-2], lefts[-1] * slower, RATE / slower)
    before = decided(*earlier, last, stalls=stalled(lefts[-1], lefts[-1], presses=pressed))
    after = decided(*earlier, slow, stalls=stalled(lefts[-1] * slower, lefts[-1], presses=pressed))
    if isinstance(before, Continue) and before.standstill_ms > 300:
        assert isinstance(after, Continue)
