"""No connection of a machine's stream is opened before its turn, and none twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.errors import Unauthorised
from vm_migration.link.machine_stream.order import OpeningOrder, StreamRole, connections, role_of


@given(st.integers(1, 8), st.lists(st.one_of(st.integers(0, 9), st.none()), max_size=30))
def test_only_the_next_one_is_let_in_and_only_once_the_one_before_is_there(most: int, asked: list[int | None]) -> None:
    """A number asks for that connection, None says that the one that was asked for last is there."""
    order, there = OpeningOrder(most), 0
    let_in: list[int] = []
    for wish in asked:
        if wish is None:
            order = order.connecting()
            there = len(let_in)
            continue
        try:
            order = order.asking(wish, role_of(wish))
        except Unauthorised:
            continue
        assert wish == there == len(let_in)
        let_in.append(wish)
    assert let_in == list(range(len(let_in)))
    assert len(let_in) <= most


@given(st.integers(1, 8))
def test_in_their_order_all_are_let_in(most: int) -> None:
    order = OpeningOrder(most)
    for ordinal in range(most):
        order = order.asking(ordinal, role_of(ordinal)).connecting()
    with pytest.raises(Unauthorised) as refusal:
        order.asking(most, role_of(most))
    assert refusal.value.code == "stream-taken"


def test_the_first_is_the_main_one_whatever_it_calls_itself() -> None:
    with pytest.raises(Unauthorised) as refusal:
        OpeningOrder(3).asking(0, StreamRole.CHANNEL)
    assert refusal.value.code == "stream-out-of-order"


def test_a_stream_of_one_channel_has_the_main_connection_alone() -> None:
    assert [connections(channels) for channels in (1, 2, 4)] == [1, 3, 5]
