"""What is shown of a machine's own stream: passes by their differences, and for how long nothing moved."""

from hypothesis import given
from hypothesis import strategies as st

from source_agent.own_stream.passes import Passes
from vm_migration.transfer.convergence import RoundMeasurement
from vmm.process.own_stream import StreamState

MS = 1_000_000


def state(passes: int, transferred: int, remaining: int, total: int = 1 << 30, throttle: int = 0) -> StreamState:
    return StreamState(
        status="active", run_status="running", running=True, pause=0, passes=passes, transferred=transferred,
        remaining=remaining, total=total, throttle_percent=throttle,
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 24), st.integers(1, 1000)), max_size=40))
def test_all_passes_together_are_the_whole_stream_in_bytes_and_in_time(steps: list[tuple[int, int, int]]) -> None:
    """A step is how many passes began, how many bytes went, and in how many milliseconds."""
    passes, closed = Passes(0), list[RoundMeasurement]()
    number = transferred = now = 0
    for began, sent, took in steps:
        number, transferred, now = number + began, transferred + sent, now + took * MS
        measured = passes.saw(state(number, transferred, 0), now)
        closed += [] if measured is None else [measured]
    closed.append(passes.closed(now))
    assert [each.round for each in closed] == list(range(len(closed)))
    assert sum(each.wire_bytes for each in closed) == transferred
    assert abs(sum(each.ms for each in closed) - now / MS) < 0.001


def test_a_pass_ends_where_the_next_one_begins() -> None:
    passes = Passes(0)
    assert passes.saw(state(0, 0, 1 << 30), MS) is None
    assert passes.saw(state(1, 4096, 1 << 20), 2 * MS) is None  # the first has begun
    measured = passes.saw(state(2, 1 << 20, 8192), 10 * MS)
    assert measured is not None
    assert (measured.round, measured.wire_bytes, measured.ms) == (0, 1 << 20, 10.0)
    assert measured.dirtied_pages + measured.unsent_pages == 2


def test_what_was_sent_is_not_forgotten_where_a_process_that_has_completed_says_nought() -> None:
    passes = Passes(0)
    passes.saw(state(1, 1 << 20, 4096), MS)
    passes.saw(state(0, 0, 0), 2 * MS)
    assert (passes.transferred, passes.closed(2 * MS).wire_bytes) == (1 << 20, 1 << 20)


def test_a_pass_tells_the_most_that_was_taken_from_the_vcpus_while_it_ran() -> None:
    passes, closed = Passes(0), list[RoundMeasurement]()
    for number, throttle in ((1, 0), (2, 0), (2, 20), (3, 20), (3, 30), (4, 30), (4, 0)):
        measured = passes.saw(state(number, 0, 0, throttle=throttle), MS)
        closed += [] if measured is None else [measured]
    closed.append(passes.closed(2 * MS))  # QEMU says 0 once it has completed
    assert [each.throttle_percent for each in closed] == [0, 20, 30, 30]


def test_the_first_pass_is_shown_in_percent_and_never_as_all() -> None:
    passes = Passes(0)
    shown = []
    for left in (100, 50, 0):
        passes.saw(state(1, 100 - left, left, 100), MS)
        shown.append(passes.percent)
    assert shown == [0, 50, 99]


def test_for_how_long_nothing_moved_is_known() -> None:
    passes = Passes(0)
    passes.saw(state(1, 10, 10), 1000 * MS)
    passes.saw(state(1, 10, 10), 5000 * MS)
    assert passes.unmoved_s == 4.0
    passes.saw(state(1, 10, 9), 6000 * MS)
    assert passes.unmoved_s == 0.0


def test_the_guests_stop_ends_a_pass_that_sent_something_and_none_that_has_only_begun() -> None:
    passes = Passes(0)
    passes.saw(state(1, 1 << 20, 4096), 10 * MS)
    before = passes.stopped(10 * MS)
    assert before is not None
    assert (before.round, before.wire_bytes) == (0, 1 << 20)
    assert passes.stopped(11 * MS) is None
    assert passes.saw(state(2, (1 << 20) + 4096, 0), 20 * MS) is None  # QEMU begins its last pass past the gate
    last = passes.closed(20 * MS)
    assert (last.round, last.wire_bytes, last.ms) == (1, 4096, 10.0)


def test_what_the_first_pass_looked_at_and_did_not_send_are_zeros() -> None:
    passes = Passes(0)
    passes.saw(state(1, 4 << 20, 1 << 20, total=64 << 20), 10 * MS)
    first = passes.closed(10 * MS)
    assert first.zero_pages == (64 - 1 - 4) << 8
    assert first.dirty_pages == first.sent_pages + first.zero_pages
    passes.saw(state(2, 5 << 20, 0, total=64 << 20), 20 * MS)
    assert passes.closed(20 * MS).zero_pages == 0
