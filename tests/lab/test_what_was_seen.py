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
    updates=2,
    jobs="whole",
    devices_reset=1,
    mappings_changed=3,
    locked_memory="own",
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
    tracker=("iommu", "perpetual"),
    guest_errors=0,
    own_errors="some",
    standstill_as_planned=True,
    updates=2,
    jobs="whole",
    devices_reset=1,
    mappings_changed=3,
    locked_memory="own",
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
        (replace(SEEN, warnings=()), "warnings none, not no-dirty-tracking"),
        (replace(SEEN, warnings=("no-dirty-tracking", "untracked-page-table")), "untracked-page-table, not"),
        (replace(SEEN, refused_pages=None), "verifier did not look"),
        (replace(SEEN, refused_pages=frozenset({3})), "different pages"),
        (replace(SEEN, lost_pages=None, refused_pages=frozenset({1})), "the oracle did not look"),
        (replace(SEEN, flushes=6), "6 flushes for 7 unmaps"),
        (replace(SEEN, unmaps=0, flushes=0), "0 unmaps"),
        (replace(SEEN, stale_mappings=2), "2 stale mappings"),
        (replace(SEEN, trackers=("iommu",)), "trackers iommu, not iommu, perpetual"),
        (replace(SEEN, trackers=("perpetual", "iommu")), "trackers perpetual, iommu, not"),
        (replace(SEEN, complaints=("vfio_container_dma_map",)), "logged: vfio_container_dma_map"),
        (replace(SEEN, guest_errors=1), "1 guest errors"),
        (replace(SEEN, own_errors=0), "0 errors of the guest's own"),
        (replace(SEEN, standstill_ms=700), "stood still for 700 ms"),
        (replace(SEEN, updates=1), "1 updates, not 2"),
        (replace(SEEN, jobs="lost"), "jobs lost, not whole"),
        (replace(SEEN, jobs=""), "jobs not looked at"),
        (replace(SEEN, devices_reset=0), "0 devices reset"),
        (replace(SEEN, mappings_changed=0), "0 mappings made or unmade"),
        (replace(SEEN, locked_memory="left-behind"), "locked memory left-behind, not own"),
    ],
)
def test_each_thing_that_differs_is_said(seen: Observation, words: str) -> None:
    assert any(words in said for said in disagreements(EXPECTED, seen))


@pytest.mark.parametrize("trackers", [(), ("iommu", "device-log"), ("device-log", "iommu")])
def test_one_tracker_is_that_of_every_container(trackers: tuple[str, ...]) -> None:
    expected = Expectation(outcome="completed", tracker="iommu")
    assert disagreements(expected, Observation(outcome="completed", trackers=("iommu", "iommu"))) == ()
    (said,) = disagreements(expected, Observation(outcome="completed", trackers=trackers))
    assert said.startswith("trackers")


def test_an_assumed_rate_is_no_surprise_and_a_log_that_stays_empty_may_be_one() -> None:
    expected = Expectation(outcome="allowed", warnings=(), complaints="some")
    seen = Observation(outcome="allowed", warnings=("rate-assumed",))
    assert disagreements(expected, seen) == ("logged: nothing",)
    assert disagreements(expected, replace(seen, complaints=("a query failed",))) == ()


def test_pages_that_must_not_be_lost() -> None:
    expected = Expectation(outcome="completed", pages_lost="none", verifier="accepts")
    fine = Observation(outcome="completed", refused_pages=frozenset(), lost_pages=frozenset())
    assert disagreements(expected, fine) == ()
    assert disagreements(expected, SEEN) == ("verifier refuses, not accepts", "2 pages lost, expected none")
