"""Of a device's time exactly the share that was asked for is taken, in slices that a guest's driver lives with."""

from hypothesis import given
from hypothesis import strategies as st

from vmm.vfio.quiesce_slices import MOST_PERCENT, PERIOD_NS, QuiesceSlices

SHARES = st.integers(1, MOST_PERCENT)
MOMENTS = st.integers(0, 1 << 62)


def walked(slices: QuiesceSlices, start: int) -> list[tuple[int, int, bool]]:
    """Follow a throttle from change to change: from when to when, and whether devices are held."""
    found: list[tuple[int, int, bool]] = []
    now: int | None = start
    while now is not None and (following := slices.next_change(now)) is not None:
        assert following > now
        found.append((now, following, slices.quiesced(now)))
        now = following
    return found


@given(SHARES, MOMENTS, st.integers(1, 20))
def test_the_share_that_was_asked_for_is_taken_of_every_whole_period(percent: int, since: int, periods: int) -> None:
    stretches = walked(QuiesceSlices().asked(percent, since, since + periods * PERIOD_NS), since)
    taken = sum(end - start for start, end, quiesced in stretches if quiesced)
    assert taken * 100 == percent * periods * PERIOD_NS


@given(SHARES, MOMENTS, st.integers(1, 10 * PERIOD_NS), st.data())
def test_nothing_changes_before_the_moment_that_was_said(
    percent: int, since: int, lasts: int, data: st.DataObject
) -> None:
    slices = QuiesceSlices().asked(percent, since, since + lasts)
    now = data.draw(st.integers(since, since + lasts - 1))
    following = slices.next_change(now)
    assert following is not None
    between = data.draw(st.integers(now, following - 1))
    assert slices.quiesced(between) == slices.quiesced(now)
    assert following == since + lasts or slices.quiesced(following) != slices.quiesced(now)


@given(SHARES, MOMENTS, st.integers(1, 10 * PERIOD_NS))
def test_devices_work_first_and_are_never_held_for_longer_than_a_slice_or_beyond_the_end(
    percent: int, since: int, lasts: int
) -> None:
    slices = QuiesceSlices().asked(percent, since, since + lasts)
    stretches = walked(slices, since)
    assert not stretches[0][2]
    assert all(end - start <= PERIOD_NS * MOST_PERCENT // 100 for start, end, quiesced in stretches if quiesced)
    assert stretches[-1][1] == since + lasts
    assert not slices.quiesced(since + lasts)
    assert slices.next_change(since + lasts) is None


@given(SHARES, MOMENTS, st.integers(0, 3 * PERIOD_NS))
def test_asking_again_for_what_holds_shifts_no_slice(percent: int, since: int, after: int) -> None:
    once = QuiesceSlices().asked(percent, since, since + 4 * PERIOD_NS)
    again = once.asked(percent, since + after, since + after + 4 * PERIOD_NS)
    for at in range(since + after, since + 4 * PERIOD_NS, PERIOD_NS // 7):
        assert again.quiesced(at) == once.quiesced(at)
    assert again.percent(since + 4 * PERIOD_NS + after - 1) == percent


@given(SHARES, MOMENTS)
def test_asking_for_nothing_gives_everything_back_at_once(percent: int, since: int) -> None:
    held = QuiesceSlices().asked(percent, since, since + 4 * PERIOD_NS)
    now = since + PERIOD_NS - 1
    assert held.quiesced(now)
    freed = held.asked(0, now, now + PERIOD_NS)
    assert (freed.percent(now), freed.quiesced(now), freed.next_change(now)) == (0, False, None)
