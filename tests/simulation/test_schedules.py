"""The handover under every fault: the agents' and orchestrators' own code, on a simulated network, clock and disk.

Each test aims one kind of fault at every state of the handover: alone, and once more among others that are drawn
beside it. `make faults` draws 2,000 of others. A schedule that breaks a rule is told with its trace and with the
command that runs it again.
"""

import pytest

from tests.simulation.faults import KINDS, STATES, Kind
from tests.simulation.tally import PAIRS, tally

REPEATED = 2
_ROLL_BACKS = frozenset({Kind.ROLL_BACK_SOURCE, Kind.ROLL_BACK_DEST})


@pytest.mark.parametrize("kind", KINDS)
def test_no_schedule_breaks_a_rule(kind: Kind) -> None:
    first = KINDS.index(kind) * len(STATES)
    seeds = [first + at + PAIRS * turn for turn in range(REPEATED) for at in range(len(STATES))]
    counted = tally(seeds)
    assert not counted.failures, "\n\n".join(map(str, counted.failures[:2]))
    missed = [state for state in STATES if not counted.hits[state, kind]]
    assert not missed, f"{kind} never struck at {missed}"
    if kind in _ROLL_BACKS:
        assert counted.rolled_back, "no agent noticed a journal that was rolled back"
