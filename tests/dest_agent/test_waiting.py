"""Who makes way for a connection that comes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dest_agent.waiting import makes_way

HOST = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::3"])
HOSTS = st.lists(HOST, max_size=40)


@given(HOSTS, HOST, st.integers(1, 40))
def test_nobody_makes_way_while_there_is_room(waiting: list[str], newcomer: str, most: int) -> None:
    assert (makes_way(waiting, newcomer, most) is None) == (len(waiting) < most)


@given(HOSTS.filter(bool), HOST)
def test_it_is_the_oldest_of_a_host_that_has_most(waiting: list[str], newcomer: str) -> None:
    gone = makes_way(waiting, newcomer, len(waiting))
    assert gone is not None
    host, crowd = waiting[gone], Counter([*waiting, newcomer])
    assert host not in waiting[:gone]
    assert crowd[host] == max(crowd[each] for each in waiting)


@given(st.integers(1, 100), st.integers(2, 32))
def test_a_host_that_floods_pushes_nobody_out_but_itself(flood: int, most: int) -> None:
    waiting = ["10.0.0.2"]
    for _ in range(most + flood):
        gone = makes_way(waiting, "10.0.0.1", most)
        if gone is not None:
            del waiting[gone]
        waiting.append("10.0.0.1")
    assert "10.0.0.2" in waiting
    assert len(waiting) == most
