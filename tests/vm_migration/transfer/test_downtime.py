from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.downtime import Boundaries, downtime

MS = 1_000_000
START = 5_000 * MS


def at(*ms: float) -> Boundaries:
    stopped, *ends = (START + int(value * MS) for value in (0, *ms))
    return Boundaries(stopped, *ends)


def test_parts_lie_between_their_boundaries() -> None:
    parts = downtime(at(2, 50, 55, 60, 70, 90), shared_clock=False, destination_ns=15 * MS)
    assert parts.parts_us == (2_000, 48_000, 5_000, 5_000, 10_000, 20_000)
    assert parts.downtime_us == 90_000
    assert parts.uncertainty_us == 5_000


def test_overlapping_work_counts_for_the_earlier_part() -> None:
    parts = downtime(at(2, 50, 40, 60, 58, 90), shared_clock=True)
    assert parts.parts_us == (2_000, 48_000, 0, 10_000, 0, 30_000)


def test_a_shared_clock_has_no_uncertainty() -> None:
    assert downtime(at(1, 2, 3, 4, 5, 6), shared_clock=True).uncertainty_us == 0


def test_work_after_the_guest_ran_is_no_downtime() -> None:
    parts = downtime(at(2, 50, 55, 60, 95, 90), shared_clock=True)
    assert parts.downtime_us == 90_000
    assert parts.resume_us == 0


@given(st.lists(st.integers(-(10**9), 10**10), min_size=7, max_size=7), st.booleans(), st.integers(0, 10**10))
@settings(max_examples=100)
def test_parts_add_up_exactly(times: list[int], shared: bool, busy: int) -> None:
    boundaries = Boundaries(*times)
    parts = downtime(boundaries, shared_clock=shared, destination_ns=busy)
    assert min(parts.parts_us) >= 0
    assert parts.downtime_us == max(0, boundaries.resumed - boundaries.stopped) // 1000
    assert 0 <= parts.uncertainty_us <= parts.resume_us
