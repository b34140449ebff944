"""When pre-copy has stalled, and at which remainder to stop then."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.profiles import Profile
from vm_migration.transfer.stall import DECAY, LEAST_WINDOW_MS, MARGIN, Boundary, StallWatch

MIB = 1 << 20
PROFILE = Profile("test", throttle_maximum=50, patience_ms=10_000)


def watched(boundaries: list[Boundary], profile: Profile = PROFILE) -> list[StallWatch]:
    """Return what is known after each boundary."""
    watch, seen = StallWatch(), []
    for boundary in boundaries:
        watch = watch.after(boundary, profile)
        seen.append(watch)
    return seen


def every_second(*left_mib: float) -> list[Boundary]:
    return [Boundary(at * 1000.0, int(left * MIB)) for at, left in enumerate(left_mib)]


journeys = st.lists(
    st.tuples(st.floats(0, 8_000), st.integers(0, 1 << 12) | st.integers(0, 20)), min_size=1, max_size=60
).map(lambda steps: [Boundary(sum(gap for gap, _ in steps[: at + 1]), left) for at, (_, left) in enumerate(steps)])


@settings(max_examples=300)
@given(journeys)
def test_stalled_is_what_the_rule_says_of_the_whole_history(boundaries: list[Boundary]) -> None:
    for at, (boundary, watch) in enumerate(zip(boundaries, watched(boundaries), strict=True)):
        long_ago = [each for each in boundaries[:at] if each.at_ms <= boundary.at_ms - PROFILE.patience_ms]
        least = min((each.left_bytes for each in long_ago), default=None)
        assert (watch.stall is not None) == (least is not None and boundary.left_bytes >= least * (1 - MARGIN))


@settings(max_examples=200)
@given(journeys)
def test_a_target_is_a_remainder_that_was_seen_and_only_rises_within_a_stall(boundaries: list[Boundary]) -> None:
    before = None
    for at, watch in enumerate(watched(boundaries)):
        seen = [each.left_bytes for each in boundaries[: at + 1]]
        if watch.stall is not None:
            assert watch.stall.target_bytes in seen
            assert watch.stall.target_bytes >= (min(seen[:-1]) if before is None else before.target_bytes) or (
                before is None and watch.stall.target_bytes == seen[-1]
            )
            assert watch.stall.relaxed <= PROFILE.relaxations
        before = watch.stall


@settings(max_examples=200)
@given(journeys)
def test_steps_come_with_a_stall_and_no_faster_than_its_windows(boundaries: list[Boundary]) -> None:
    last: float | None = None
    for boundary, watch in zip(boundaries, watched(boundaries), strict=True):
        if watch.stall is None:
            assert not watch.presses
            assert not watch.near_minimum
            last = None
        elif watch.presses:
            assert last is None or boundary.at_ms - last >= LEAST_WINDOW_MS
            last = boundary.at_ms


def test_a_remainder_that_falls_as_a_whole_has_not_stalled_however_it_oscillates() -> None:
    falling = [100 * 0.9**second * (1.3 if second % 2 else 1.0) for second in range(40)]
    assert all(watch.stall is None for watch in watched(every_second(*falling)))


def test_a_remainder_that_oscillates_about_the_same_level_has() -> None:
    """The timer that every smaller remainder sets back never ends here."""
    level = [100, 60, 62, 58, 64, 59, 61, 58, 63, 60, 62, 59, 61, 60]
    seen = watched(every_second(*level))
    assert [at for at, watch in enumerate(seen) if watch.stall is not None] == [11, 12, 13]
    assert seen[11].stall is not None
    assert seen[11].stall.target_bytes == 58 * MIB
    assert seen[11].presses
    assert [watch.near_minimum for watch in seen[11:]] == [True, False, True]


def test_a_target_that_does_not_come_again_is_relaxed_faster_and_faster() -> None:
    """A link that lasts slower than it began: the remainder of its better days is never reached again."""
    seen = watched(every_second(10, *([50] * 40)))
    pressed = [at for at, watch in enumerate(seen) if watch.presses]
    assert pressed[:2] == [10, 20]
    gaps = [after - before for before, after in itertools.pairwise(pressed)]
    assert gaps[:3] == [10, 10 * DECAY, 3]
    assert seen[19].stall is not None
    assert not seen[19].near_minimum
    assert seen[20].stall is not None
    assert seen[20].stall.target_bytes == 50 * MIB
    assert seen[20].near_minimum


def test_what_falls_again_has_no_stall_any_more() -> None:
    seen = watched(every_second(*([50] * 12), 40))
    assert seen[11].stall is not None
    assert seen[12].stall is None


def test_a_profile_that_relaxes_nothing_waits_for_the_least() -> None:
    strict = Profile("strict", throttle_maximum=0, patience_ms=10_000, relaxations=0)
    seen = watched(every_second(10, *([50] * 100)), strict)
    assert not any(watch.near_minimum for watch in seen[1:])
