"""Which stream is dead, and when: a slow one is not, and one that must not be heard is not either."""

from hypothesis import given
from hypothesis import strategies as st

from source_agent.pulse import STALL, UNMOVED, Pulse

NEVER = float("inf")


def telling(since: float = 100.0) -> Pulse:
    pulse = Pulse(since)
    pulse.heard(since, 0, awaited=False, tells=True)
    return pulse


def test_a_peer_that_tells_every_second_is_dead_after_five_of_silence_whatever_is_waited_for() -> None:
    pulse = telling()
    assert pulse.dead_at() == 100 + STALL
    pulse.writes(101)
    assert pulse.dead_at() == 100 + STALL
    pulse.wrote(104)  # a buffer had room; nobody was heard
    assert pulse.dead_at() == 100 + STALL
    pulse.heard(104.5, 0, awaited=False, tells=True)
    assert pulse.dead_at() == 104.5 + STALL


@given(st.integers(1, 200))
def test_a_slow_link_lives_for_as_long_as_something_arrives(frames: int) -> None:
    """At 1 Mbit/s a frame takes 9 s: its write, and the answer to a barrier behind it, take long."""
    pulse = telling(0.0)
    pulse.writes(0.0)
    for second in range(1, 9 * frames):
        assert pulse.dead_at() > second
        pulse.heard(second, second // 9, awaited=True, tells=True)


def test_a_peer_that_lives_and_applies_nothing_is_given_up_in_the_end() -> None:
    pulse = telling(0.0)
    pulse.heard(10.0, 0, awaited=False, tells=True)
    pulse.asks(10.0)
    for second in range(11, 100):
        if pulse.dead_at() <= second:
            break
        pulse.heard(second, 0, awaited=True, tells=True)
    assert second == 10 + UNMOVED


def test_a_peer_that_applies_nothing_because_nothing_is_sent_lives() -> None:
    pulse = telling(0.0)
    for second in range(1, 100):
        assert pulse.dead_at() > second
        pulse.heard(second, 3, awaited=False, tells=True)


def test_of_an_older_peer_only_what_is_waited_for_counts() -> None:
    pulse = Pulse(0.0)
    assert pulse.dead_at() == NEVER
    pulse.writes(50.0)
    assert pulse.dead_at() == 50 + STALL
    pulse.wrote(54.0)
    assert pulse.dead_at() == NEVER
    pulse.asks(60.0)
    assert pulse.dead_at() == 60 + 2 * STALL
    pulse.heard(65.0, 1, awaited=True, tells=False)
    assert pulse.dead_at() == 65 + 2 * STALL
    pulse.heard(66.0, 2, awaited=False, tells=False)
    assert pulse.dead_at() == NEVER
