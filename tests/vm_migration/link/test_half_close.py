"""Both directions of a carried connection end, each for itself, and nothing that was said is lost or invented."""

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.link.machine_stream.half_close import HalfClose, Side, StreamBroken

PIECES = st.lists(st.binary(min_size=1, max_size=3), max_size=6)


@dataclass
class End:
    """One host's end: what its process still says, what it was told, and the pieces on their way to it."""

    says: deque[bytes]
    state: HalfClose = field(default_factory=HalfClose)
    told: list[bytes] = field(default_factory=list)
    coming: deque[bytes] = field(default_factory=deque)

    def speak(self, other: "End") -> None:
        piece = self.says.popleft()
        self.state = self.state.heard(Side.HERE, piece)
        other.coming.append(piece)

    def listen(self) -> None:
        piece = self.coming.popleft()
        self.state = self.state.heard(Side.THERE, piece)
        self.told.append(piece)


@given(PIECES, PIECES, st.data())
def test_whatever_order_things_happen_in_each_side_is_told_what_the_other_said_up_to_its_end(
    here: list[bytes], there: list[bytes], data: st.DataObject
) -> None:
    one, two = End(deque([*here, b""])), End(deque([*there, b""]))
    while True:
        steps = [("speak", one, two)] * bool(one.says) + [("speak", two, one)] * bool(two.says)
        steps += [("listen", one, two)] * bool(one.coming) + [("listen", two, one)] * bool(two.coming)
        if not steps:
            break
        assert not (one.state.over and two.state.over)
        kind, end, other = data.draw(st.sampled_from(steps))
        if kind == "speak":
            end.speak(other)
        else:
            end.listen()
    assert one.told == [*there, b""]
    assert two.told == [*here, b""]
    assert one.state.over
    assert two.state.over
    one.state.require_over()


@given(st.sampled_from(Side), st.binary(max_size=3))
def test_nothing_may_be_said_behind_an_end(side: Side, more: bytes) -> None:
    ended = HalfClose().heard(side, b"")
    with pytest.raises(StreamBroken):
        ended.heard(side, more)


@pytest.mark.parametrize("ended", [(), (Side.HERE,), (Side.THERE,)])
def test_a_connection_of_which_a_side_has_not_ended_has_broken(ended: tuple[Side, ...]) -> None:
    state = HalfClose()
    for side in ended:
        state = state.heard(side, b"")
    with pytest.raises(StreamBroken):
        state.require_over()
