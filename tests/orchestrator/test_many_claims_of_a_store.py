"""Many claims taken and renewed at once: what every store does, whichever keeps the attempts."""

from dataclasses import replace

from orchestrator.attempt import Outcome, Phase
from orchestrator.store.claim import CLAIM_SECONDS
from tests.orchestrator.stores import OpenStore, new
from vm_migration.api.v1 import source_pb2


def test_many_are_claimed_at_once_but_those_that_ended_or_are_held(opened: OpenStore) -> None:
    later = 100.0 + CLAIM_SECONDS + 1
    with opened() as store:
        names = [f"a{number:02}" for number in range(60)]
        for number, name in enumerate(names):
            store.open_attempt(new(name, machine=f"m{number}", report=source_pb2.AttemptReport(percent=number)))
        store.save(store.get("a03").to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        store.claim("a04", "cli-2", later)
        taken = store.claim_all([*names, "nothing"], "orchestrator", later)
        assert {one.attempt for one in taken} == set(names) - {"a03", "a04"}
        assert {(one.driver, one.term, one.heartbeat) for one in taken} == {("orchestrator", 2, later)}
        assert sorted(taken, key=lambda one: one.attempt) == [
            store.get(name) for name in names if name not in {"a03", "a04"}
        ]
        told = store.pending("orchestrator", 1000)
        assert [one.number for one in told] == sorted({one.number for one in told})
        assert {one.subject for one in told if one.kind == "state"} == {one.attempt for one in taken}
        assert {one.subject for one in told if one.kind == "event"} == {one.attempt for one in taken}
        assert {one.subject for one in store.pending("cli-1", 1000)} == {"a03"}
        assert store.claim_all([], "orchestrator", later) == ()
        assert store.claim_all(names, "orchestrator", later + 1) == ()
        assert len(store.claim_all(names, "orchestrator", later + 1, sole=True)) == 58


def test_what_is_too_much_to_hand_over_at_once_is_claimed_all_the_same(opened: OpenStore) -> None:
    with opened() as store:
        for number in range(25):
            row = store.open_attempt(new(f"a{number:02}", machine=f"m{number}"))
            for phase in (Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING):
                row = store.save(row.to(phase), 101.0)
        taken = store.claim_all([f"a{number:02}" for number in range(25)], "orchestrator", 1000.0)
        assert {one.term for one in taken} == {2}
        events = [one for one in store.pending("orchestrator", 1000) if one.kind == "event"]
        assert (len(taken), len(events)) == (25, 100)


def test_many_claims_are_renewed_at_once_and_those_that_are_lost_are_told(opened: OpenStore) -> None:
    with opened() as store:
        mine, other = store.open_attempt(new("mine")), store.open_attempt(new("other", machine="m2"))
        store.claim("other", "cli-2", 100.0 + CLAIM_SECONDS + 1)
        told = replace(mine, report=source_pb2.AttemptReport(percent=7), updated_at=105.0)
        gone = replace(mine, attempt="gone", machine="m3")
        assert store.renew([told, other, gone], 106.0) == {"other", "gone"}
        row = store.get("mine")
        assert row.report is not None
        assert (row.heartbeat, row.updated_at, row.report.percent) == (106.0, 105.0, 7)
        assert store.get("other").heartbeat == 100.0 + CLAIM_SECONDS + 1
        assert store.renew([], 107.0) == frozenset()


def test_more_claims_than_one_transaction_may_write_are_renewed(opened: OpenStore) -> None:
    with opened() as store:
        mine = [store.open_attempt(new(f"a{number:02}", machine=f"m{number}")) for number in range(60)]
        store.claim("a59", "cli-2", 100.0 + CLAIM_SECONDS + 1)
        assert store.renew(mine, 106.0) == {"a59"}
        assert {row.heartbeat for row in store.open_rows() if row.attempt != "a59"} == {106.0}


def test_a_report_that_is_older_than_what_is_written_renews_the_claim_only(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        newer = source_pb2.AttemptReport(percent=50)
        begun = store.save(replace(row.to(Phase.BEGUN), report=newer), 110.0)
        late = replace(begun, report=source_pb2.AttemptReport(percent=7), updated_at=109.0)
        assert store.renew([late], 111.0) == frozenset()
        assert (store.get(row.attempt).report, store.get(row.attempt).heartbeat) == (newer, 111.0)
        ended = store.save(replace(begun.to(Phase.COMPLETED, Outcome.COMPLETED), report=newer), 112.0)
        assert store.renew([replace(late, updated_at=120.0)], 121.0) == frozenset()
        assert store.get(row.attempt) == replace(ended, heartbeat=121.0)
