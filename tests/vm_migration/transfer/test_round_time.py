"""How long a round takes whose pages wait: by a copy of what the source does, and in which order times lie."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.dirtying import Growth
from vm_migration.transfer.forecast import Workload
from vm_migration.transfer.round_time import round_ms

SLACK = 1 + 1e-9
sizes = st.just(0.0) | st.floats(1, 1e12)  # of less than a byte there are only rounding errors
rates = st.floats(1, 1e11)
factors = st.floats(1, 50)
links = st.tuples(rates, factors)
"""A link, and by how much another one is faster."""


class Clean:
    """What is clean yet of so many bytes that are written at random."""

    def __init__(self, per_ms: float, late: float) -> None:
        self.per_ms, self.late = per_ms, late

    def __call__(self, ms: float) -> float:
        return self.late * math.exp(-self.per_ms * ms / self.late) if self.late else 0.0


def test_without_writes_it_is_the_bytes_over_the_rate() -> None:
    assert round_ms(1e9, 1e8, lambda _: 1e8, 1e8) == pytest.approx(10_000)
    assert round_ms(0, 0, lambda _: 0.0, 1e8) == 0


@pytest.mark.parametrize("announced", [200, 500, 2000])
@pytest.mark.parametrize("per_second", [5, 60, 600])
def test_it_is_what_sending_page_by_page_takes(announced: int, per_second: int) -> None:
    """A hundred thousand pages of what is late, each sent with the probability that it is clean at its turn."""
    late, rate = 200e6, 118e6
    clean = Clean(per_second * 1e3, late)
    ms, page = (announced * 1e6 - late) * 1000 / rate, late / 100_000
    for _ in range(100_000):
        ms += page * 1000 / rate * clean(ms) / late
    assert round_ms(announced * 1e6, late, clean, rate) == pytest.approx(
        max(ms, announced * 1e6 * 500 / rate), rel=0.02
    )


@given(sizes, sizes, st.floats(0, 1), rates, links)
@settings(max_examples=200)
def test_more_bytes_and_a_slower_link_take_no_less(
    announced: float, more: float, share: float, per_ms: float, link: tuple[float, float]
) -> None:
    late, (rate, faster) = announced * share, link
    clean = Clean(per_ms, late)
    took = round_ms(announced, late, clean, rate)
    assert announced * 500 / rate <= took * SLACK
    assert took <= announced * 1000 / rate * SLACK
    assert took <= round_ms(announced + more, late, clean, rate) * SLACK
    assert round_ms(announced, late, clean, rate * faster) <= took * SLACK


@given(sizes, st.floats(0, 1), rates, links)
@settings(max_examples=200)
def test_what_leaves_less_clean_takes_no_longer(
    announced: float, share: float, per_ms: float, link: tuple[float, float]
) -> None:
    late, (rate, heavier) = announced * share, link
    took = round_ms(announced, late, Clean(per_ms, late), rate)
    assert round_ms(announced, late, Clean(per_ms * heavier, late), rate) <= took * SLACK


GUEST = Workload(1 << 30, 60e6, 200_000_000, pages_wait=True)


def test_a_guest_that_writes_its_pages_in_turn_writes_none_of_the_last_ones_again() -> None:
    in_turn = replace(GUEST, growth=Growth.steady(60e6, 200e6))
    at_random = replace(GUEST, growth=Growth((), 60e3, 200e6, 200e6))
    for workload, waits in ((in_turn, False), (at_random, True)):
        written = workload.written_after(1000)
        plain = written * 1000 / 118e6
        took = workload.later_ms(written, 1000, 118e6)
        assert (took < 0.97 * plain) is waits
        assert took <= plain * SLACK


def test_what_is_never_dirtied_is_sent_first_and_the_rest_is_dirty_by_then() -> None:
    """1 GiB at 118 MB/s takes nine seconds, in which all of the working set is written three times."""
    took = GUEST.first_ms(1 << 30, 118e6)
    assert took == pytest.approx(((1 << 30) - 200e6) * 1000 / 118e6, rel=0.02)


def test_where_pages_do_not_wait_a_round_is_its_bytes_over_the_rate() -> None:
    eager = replace(GUEST, pages_wait=False)
    assert eager.first_ms(1e9, 1e8) == eager.later_ms(1e9, 5000, 1e8) == 10_000
