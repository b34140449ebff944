"""Who makes way for a connection that comes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dest_agent.admission import MOST_STREAMS
from dest_agent.direct_listener import MOST_SPEAKING
from dest_agent.waiting import Origin, makes_way

HOST = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::3", "fd00::4", "fd00:1::3"]).map(Origin.of)
HOSTS = st.lists(HOST, max_size=40)
SOURCE = Origin.of("fd00:2::7")


@given(HOSTS, HOST, st.integers(1, 40))
def test_nobody_makes_way_while_there_is_room(waiting: list[Origin], newcomer: Origin, most: int) -> None:
    assert (makes_way(waiting, newcomer, most) is None) == (len(waiting) < most)


@given(HOSTS.filter(bool), HOST)
def test_it_is_the_oldest_of_those_that_are_too_many(waiting: list[Origin], newcomer: Origin) -> None:
    gone = makes_way(waiting, newcomer, len(waiting))
    assert gone is not None
    few = min(MOST_STREAMS, len(waiting) // 2)
    networks = Counter(each.network for each in (*waiting, newcomer))
    hosts = Counter(each.host for each in (*waiting, newcomer))

    def crowd(of: Origin) -> tuple[int, int]:
        return max(few, networks[of.network]), max(few, hosts[of.host])

    worst = max(crowd(each) for each in waiting)
    assert crowd(waiting[gone]) == worst
    assert all(crowd(each) < worst for each in waiting[:gone])


def crowded(waiting: list[Origin], newcomers: list[Origin], most: int = MOST_SPEAKING) -> list[Origin]:
    """Return who is left where these come in, one after the other."""
    left = list(waiting)
    for newcomer in newcomers:
        gone = makes_way(left, newcomer, most)
        if gone is not None:
            del left[gone]
        left.append(newcomer)
    return left


@given(st.integers(1, 100), st.integers(2, 32))
def test_a_host_that_floods_pushes_nobody_out_but_itself(flood: int, most: int) -> None:
    other, crowds = Origin.of("10.0.0.2"), Origin.of("10.0.0.1")
    left = crowded([other], [crowds] * (most + flood), most)
    assert other in left
    assert len(left) == most


@given(st.integers(1, 200), st.integers(1, MOST_STREAMS))
def test_a_host_that_floods_pushes_out_no_other_of_its_network(flood: int, streams: int) -> None:
    source, crowds = Origin.of("fd00::3"), Origin.of("fd00::4")
    assert crowded([source] * streams, [crowds] * flood).count(source) == streams


@given(st.integers(1, 200), st.integers(1, MOST_STREAMS))
def test_who_has_all_addresses_of_a_network_pushes_nobody_out_of_another(flood: int, streams: int) -> None:
    one_each = [Origin.of(f"fd00:1::{number:x}") for number in range(flood)]
    assert crowded([SOURCE] * streams, one_each).count(SOURCE) == streams


@pytest.mark.parametrize("attackers", ["10.0.{}.1", "fd00:{}::1", "fd00:2::1:{}"])
def test_a_source_that_opens_all_its_streams_is_not_taken_for_the_crowd(attackers: str) -> None:
    """Of 32 places each is taken by another host: the ones that wait longest go, and the source's have just come."""
    one_each = [Origin.of(attackers.format(number)) for number in range(10, 10 + MOST_SPEAKING)]
    others = [Origin.of(attackers.format(number)) for number in range(60, 60 + MOST_SPEAKING - MOST_STREAMS)]
    assert crowded(one_each, [SOURCE] * MOST_STREAMS + others).count(SOURCE) == MOST_STREAMS


def test_a_network_is_what_somebody_has_all_addresses_of() -> None:
    assert Origin.of("10.0.0.1").network == "10.0.0.1"
    assert Origin.of("fd00::1:2:3:4").network == Origin.of("fd00::ffff:0:0:0").network == "fd00::/64"
    assert Origin.of("fe80::1%lo").network == "fe80::/64"
    assert Origin.of("::ffff:10.0.0.1").network == "10.0.0.1"
