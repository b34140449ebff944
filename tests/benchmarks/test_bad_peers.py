"""A bad peer that did nothing must not pass for one that was borne."""

import pytest

from benchmarks.bad_peers import CALLER, HALF_OPEN, SILENT, BadPeer


@pytest.mark.parametrize(
    ("peer", "held", "done"), [(SILENT, 0.9 * HALF_OPEN, 5000.0), (SILENT, 0.0, 0.0), (CALLER, 0.0, 0.0)]
)
def test_a_peer_that_did_too_little_is_no_measure(peer: BadPeer, held: float, done: float) -> None:
    with pytest.raises(RuntimeError, match="too little"):
        peer.require_bad({"held": held, "done": done})


def test_a_peer_that_was_bad_is_one() -> None:
    SILENT.require_bad({"held": float(HALF_OPEN), "done": HALF_OPEN})
    CALLER.require_bad({"held": 0.0, "done": 1.0})
