"""Who of those that wait may start, and why the others wait."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.attempt import Attempt
from orchestrator.policy import MigrationPolicy
from orchestrator.queueing import Slots, may_start, waits_for

HOSTS = st.sampled_from(["a", "b", "c"])
SOME = st.dictionaries(HOSTS, st.integers(1, 3))
SLOTS = st.builds(Slots, st.integers(1, 2), st.integers(1, 2), SOME, SOME)


def waiting(number: int, source: str, destination: str, priority: int = 0) -> Attempt:
    return Attempt(
        attempt=str(number),
        machine=str(number),
        name=str(number),
        source=source,
        destination=destination,
        policy=MigrationPolicy(),
        created_at=float(number),
        updated_at=0.0,
        priority=priority,
    )


@st.composite
def attempts(draw: st.DrawFn, first: int = 0) -> list[Attempt]:
    return [
        waiting(first + number, draw(HOSTS), draw(HOSTS), draw(st.integers(0, 3)))
        for number in range(draw(st.integers(0, 8)))
    ]


@settings(max_examples=150)
@given(queue=attempts(), running=attempts(first=100), slots=SLOTS)
def test_no_host_is_asked_for_more_than_its_slots_and_none_idles(
    queue: list[Attempt], running: list[Attempt], slots: Slots
) -> None:
    active: list[Attempt] = []
    for one in running:
        active.extend(may_start([one], active, slots))
    chosen = may_start(queue, active, slots)
    together = [*active, *chosen]
    for host, count in Counter(one.source for one in together).items():
        assert count <= slots.out_of(host)
    for host, count in Counter(one.destination for one in together).items():
        assert count <= slots.into(host)
    left = [one for one in queue if one not in chosen]
    assert may_start(left, together, slots) == []


@settings(max_examples=150)
@given(queue=attempts(), slots=SLOTS)
def test_what_has_no_more_priority_than_others_never_goes_before_them(queue: list[Attempt], slots: Slots) -> None:
    chosen = may_start(queue, [], slots)
    assert [one.priority for one in chosen] == sorted((one.priority for one in chosen), reverse=True)
    alone = may_start([one for one in queue if one.priority == 3], [], slots)
    assert list(chosen[: len(alone)]) == list(alone)


def test_between_one_pair_of_hosts_who_waits_longest_goes_first() -> None:
    queue = [waiting(number, "a", "b") for number in (3, 1, 2)]
    assert [one.attempt for one in may_start(queue, [], Slots(outgoing=2, incoming=2))] == ["1", "2"]


def test_a_host_with_many_machines_to_send_leaves_others_their_turn_at_the_same_destination() -> None:
    queue = [waiting(number, "a", "d") for number in range(10)]
    queue += [waiting(20, "b", "d"), waiting(21, "b", "d"), waiting(30, "c", "d")]
    served: dict[str, float] = {}
    order = []
    for turn in range(len(queue)):
        (first,) = may_start(queue, [], served=served)
        served[first.source] = float(turn)
        queue.remove(first)
        order.append(first.source)
    assert order[:5] == ["a", "b", "c", "a", "b"]
    assert set(order[5:]) == {"a"}


def test_slots_are_raised_for_some_hosts_and_never_lowered() -> None:
    slots = Slots(outgoing=2, incoming_of={"b": 3}).raised({"a": 4, "c": 1}, {"b": 2, "d": 5})
    assert [slots.out_of(host) for host in "abc"] == [4, 2, 2]
    assert [slots.into(host) for host in "abd"] == [1, 3, 5]


def test_who_waits_is_told_what_for() -> None:
    one = waiting(1, "a", "b")
    assert waits_for(one, []) == "waits for its turn"
    assert waits_for(one, [waiting(2, "a", "c")]) == "waits for its turn: a sends another machine"
    many = [waiting(2, "c", "b"), waiting(3, "d", "b")]
    told = "waits for its turn: b takes 2 other machines in"
    assert waits_for(one, many, Slots(incoming=2)) == told
