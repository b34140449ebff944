from dataclasses import replace

import pytest

from lab.observation import Observation, disagreements
from lab.scenario import Expectation

SEEN = Observation(
    outcome="completed",
    error="VFIO unmap failed",
    refused_pages=frozenset({3, 4}),
    lost_pages=frozenset({3, 4}),
    warnings=("no-dirty-tracking",),
    unmaps=7,
    own_errors=2,
    flushes=7,
    trackers=("iommu", "perpetual"),
    standstill_ms=1000,
    planned_standstill_ms=1050,
)
EXPECTED = Expectation(
    outcome="completed",
    error="unmap failed",
    blockers=(),
    warnings=("no-dirty-tracking",),
    verifier="refuses",
    pages_lost="some",
    flushes="one-per-unmap",
    unmaps="some",
    stale_mappings=0,
    tracker="perpetual",
    guest_errors=0,
    own_errors="some",
    standstill_as_planned=True,
)


def test_nothing_is_said_of_what_is_as_expected() -> None:
    assert disagreements(EXPECTED, SEEN) == ()


def test_what_is_not_expected_is_not_looked_at() -> None:
    assert disagreements(Expectation(outcome="completed"), SEEN) == ()


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SEEN, outcome="failed"), "failed, not completed"),
        (replace(SEEN, error="else"), 'does not say "unmap failed"'),
        (replace(SEEN, blockers=("no-p2p",)), "blockers no-p2p, not none"),
        (replace(SEEN, warnings=()), "warnings none lack"),
        (replace(SEEN, refused_pages=None), "verifier did not look"),
        (replace(SEEN, refused_pages=frozenset({3})), "different pages"),
        (replace(SEEN, lost_pages=None, refused_pages=frozenset({1})), "the oracle did not look"),
        (replace(SEEN, flushes=6), "6 flushes for 7 unmaps"),
        (replace(SEEN, unmaps=0, flushes=0), "0 unmaps"),
        (replace(SEEN, stale_mappings=2), "2 stale mappings"),
        (replace(SEEN, trackers=("iommu",)), "not perpetual"),
        (replace(SEEN, guest_errors=1), "1 guest errors"),
        (replace(SEEN, own_errors=0), "0 errors of the guest's own"),
        (replace(SEEN, standstill_ms=700), "stood still for 700 ms"),
    ],
)
def test_each_thing_that_differs_is_said(seen: Observation, words: str) -> None:
    assert any(words in said for said in disagreements(EXPECTED, seen))


def test_pages_that_must_not_be_lost() -> None:
    expected = Expectation(outcome="completed", pages_lost="none", verifier="accepts")
    fine = Observation(outcome="completed", refused_pages=frozenset(), lost_pages=frozenset())
    assert disagreements(expected, fine) == ()
    assert disagreements(expected, SEEN) == ("verifier refuses, not accepts", "2 pages lost, expected none")
