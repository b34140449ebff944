"""The device's own log against a set of pages, and every errno of semantics 2.6 (P4: the limit of ranges)."""

import errno
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.bits import ones
from tests.vfio_host.device_streams import refused
from vfio_host.dma_log import DmaLog
from vfio_host.interface.bitmaps import encoded_room
from vfio_host.interface.numbers import MAX_LOGGING_RANGES, U64_MAX

PAGE, GIB, TIB = 4096, 1 << 30, 1 << 40


def started(*ranges: tuple[int, int], width: int = 48) -> DmaLog:
    log = DmaLog(width=width)
    assert log.start(PAGE, ranges) == PAGE
    return log


@pytest.mark.parametrize(
    ("page_size", "ranges", "number"),
    [
        (PAGE, (), errno.EINVAL),
        (PAGE, [(n * PAGE, PAGE) for n in range(MAX_LOGGING_RANGES + 1)], errno.E2BIG),
        (PAGE, [(100, PAGE)], errno.EINVAL),
        (PAGE, [(0, 100)], errno.EINVAL),
        (PAGE, [(0, 0)], errno.EINVAL),
        (PAGE, [(0, -PAGE)], errno.EINVAL),
        (2 * PAGE, [(PAGE, 2 * PAGE)], errno.EINVAL),
        (0, [(0, PAGE)], errno.EINVAL),
        (3000, [(0, 3000)], errno.EINVAL),
        (PAGE, [(U64_MAX + 1 - PAGE, PAGE)], errno.EOVERFLOW),
        (PAGE, [(U64_MAX + 1 - PAGE, 2 * PAGE)], errno.EOVERFLOW),
        (PAGE, [(0, 2 * PAGE), (PAGE, PAGE)], errno.EINVAL),
        (PAGE, [(4 * PAGE, PAGE), (0, 8 * PAGE)], errno.EINVAL),
        (PAGE, [(0, TIB), (TIB, PAGE)], errno.EOPNOTSUPP),
    ],
)
def test_start_errnos(page_size: int, ranges: Sequence[tuple[int, int]], number: int) -> None:
    log = DmaLog(width=40)
    with refused(number):
        log.start(page_size, ranges)
    assert not log.active
    assert log.start(PAGE, [(0, TIB)]) == PAGE


def test_p4_as_many_ranges_as_fit_into_a_page() -> None:
    log = started(*((n * 2 * PAGE, PAGE) for n in range(MAX_LOGGING_RANGES)))
    log.mark(0, MAX_LOGGING_RANGES * 2 * PAGE)
    whole = log.report(0, MAX_LOGGING_RANGES * 2 * PAGE, PAGE)
    assert ones(whole) == list(range(0, 2 * MAX_LOGGING_RANGES, 2))


def test_a_log_starts_once_until_it_is_stopped_and_starts_empty() -> None:
    log = started((0, GIB))
    log.mark(0, 1)
    with refused(errno.EINVAL):
        log.start(PAGE, [(0, GIB)])
    assert ones(log.report(0, GIB, PAGE)) == [0]
    log.mark(PAGE, 1)
    log.stop()
    with refused(errno.EINVAL):
        log.report(0, GIB, PAGE)
    log.mark(2 * PAGE, 1)
    log.start(PAGE, [(0, GIB)])
    assert ones(log.report(0, GIB, PAGE)) == []


@pytest.mark.parametrize(
    ("iova", "length", "page_size", "number"),
    [
        (0, GIB, 2048, errno.EINVAL),
        (0, GIB, 0, errno.EINVAL),
        (0, GIB, 3 * PAGE, errno.EINVAL),
        (0, 0, PAGE, errno.EINVAL),
        (U64_MAX + 1 - PAGE, PAGE, PAGE, errno.EOVERFLOW),
        (-PAGE, PAGE, PAGE, errno.EOVERFLOW),
    ],
)
def test_report_errnos(iova: int, length: int, page_size: int, number: int) -> None:
    log = started((0, GIB))
    log.mark(0, 1)
    with refused(number):
        log.report(iova, length, page_size)
    assert ones(log.report(0, GIB, PAGE)) == [0]


@pytest.mark.parametrize(
    ("asked", "used"), [(PAGE, 16384), (16384, 16384), (32768, 16384), (65536, 65536), (1 << 30, 65536)]
)
def test_the_device_picks_the_nearest_page_size_that_it_has(asked: int, used: int) -> None:
    assert DmaLog(width=48, page_sizes=(16384, 65536)).start(asked, [(0, GIB)]) == used


def test_a_logged_page_sets_every_bit_that_it_touches() -> None:
    log = DmaLog(width=48, page_sizes=(16384,))
    log.start(PAGE, [(0, GIB)])
    log.mark(0x5000, 1)
    assert ones(log.report(0, GIB, PAGE)) == [4, 5, 6, 7]
    log.mark(0x5000, 1)
    assert ones(log.report(0, GIB, 65536)) == [0]
    log.mark(0x5000, 1)
    assert ones(log.report(0x5000, 0x2000, PAGE)) == [0, 1]


def test_an_answer_over_the_limit_is_refused_and_nothing_is_cleared() -> None:
    log = started((0, TIB))
    for page in range(0, 100_000, 100):
        log.mark(page * PAGE, 1)
    with refused(errno.ENOMEM):
        log.report(0, TIB, PAGE, limit=1000)
    assert len(ones(log.report(0, GIB, PAGE))) == 1000


def test_the_log_of_a_terabyte_costs_what_was_written() -> None:
    log = started((0, 1 << 48))
    tracemalloc.start()
    try:
        for page in range(0, 1 << 28, 1 << 18):
            log.mark(page * PAGE, PAGE)
        log.mark(TIB, GIB)
        bitmap = log.report(0, 2 * TIB, PAGE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert bitmap.runs == ((TIB // PAGE, GIB // PAGE),)
    assert encoded_room(bitmap) < 1024 * 20


SPACE = 80
RUNS = st.tuples(st.integers(0, SPACE - 1), st.integers(1, 24))


@settings(max_examples=150)
@given(
    st.lists(RUNS, min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(["write", "report"]), RUNS, st.integers(0, 5000)), max_size=40),
)
def test_the_log_does_what_a_set_of_pages_does(
    ranges: list[tuple[int, int]], steps: list[tuple[str, tuple[int, int], int]]
) -> None:
    log, tracked, written = DmaLog(width=48), set[int](), set[int]()
    chosen = []
    for first, count in ranges:
        if not tracked & set(range(first, first + count)):
            tracked |= set(range(first, first + count))
            chosen.append((first * PAGE, count * PAGE))
    log.start(PAGE, chosen)
    for action, (first, count), inside in steps:
        if action == "write":
            log.mark(first * PAGE + inside, count * 700)
            last = (first * PAGE + inside + count * 700 - 1) // PAGE
            written |= set(range(first + inside // PAGE, last + 1)) & tracked
        else:
            expected = sorted(written & set(range(first, first + count)))
            assert ones(log.report(first * PAGE, count * PAGE, PAGE)) == [page - first for page in expected]
            written -= set(expected)
    assert ones(log.report(0, 200 * PAGE, PAGE)) == sorted(written)
