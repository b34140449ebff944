"""What has changed is taken in at once, and tried again for as long as it could not be."""

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.link.changed_files import AGAIN, Followed

FOUND = st.integers(0, 3)
STEPS = st.lists(st.tuples(FOUND, st.floats(0, 3 * AGAIN), st.booleans()), max_size=40)


@given(FOUND, STEPS)
def test_nothing_that_changed_is_left_for_longer_than_a_pause_and_nothing_is_taken_in_twice(
    first: int, steps: list[tuple[int, float, bool]]
) -> None:
    followed, taken, now = Followed(first), first, 0.0
    tried: tuple[int, float] | None = None
    for found, apart, works in steps:
        now += apart
        due = followed.due(found, now)
        assert not (due and found == taken)
        if found != taken and (tried is None or tried[0] != found or now >= tried[1] + AGAIN):
            assert due
        if due and works:
            followed.took(found)
            taken, tried = found, None
        elif due:
            assert followed.failed(found, now) == (tried is None or tried[0] != found)
            tried = (found, now)


def test_what_could_not_be_taken_in_waits_and_what_comes_instead_does_not() -> None:
    followed = Followed("old")
    assert followed.due("new", 0.0)
    assert followed.failed("new", 0.0)
    assert not followed.due("new", AGAIN / 2)
    assert followed.due("newer", AGAIN / 2)
    assert followed.due("new", AGAIN)
    assert not followed.failed("new", AGAIN)
    followed.took("new")
    assert not followed.due("new", 10 * AGAIN)
