"""Evacuations and hosts in maintenance in both stores: who may write them, and what is forgotten."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from orchestrator.attempt import Outcome
from orchestrator.evacuation.kept import KeptEvacuations, driven
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.maintenance import choice_now, in_maintenance, set_maintenance
from orchestrator.store.entries import Entry
from orchestrator.store.store import Store
from tests.orchestrator.stores import OpenStore, new
from vm_migration.errors import InvalidInput, Refused, Stale

PLAN = Evacuation("ev-1", Kind.EVACUATE, "host-a", (Move("m", "guest", 1),), 10.0, 10.0, driver="cli-1", heartbeat=10.0)


@pytest.fixture
def store(opened: OpenStore) -> Iterator[Store]:
    with opened() as store:
        yield store


@pytest.fixture
def kept(store: Store) -> KeptEvacuations:
    return KeptEvacuations(store.entries)


def test_one_is_entered_once_and_found_by_the_start_of_its_name(kept: KeptEvacuations) -> None:
    assert kept.enter(PLAN) == PLAN
    assert kept.enter(replace(PLAN, parallel=9)) == PLAN
    assert kept.find("ev-") == PLAN
    with pytest.raises(Refused, match="ev-1 of host-a is open"):
        kept.enter(replace(PLAN, evacuation="ev-2"))
    other = kept.enter(replace(PLAN, evacuation="ev-3", host="host-b", created_at=20.0))
    assert kept.all() == (other, PLAN)
    with pytest.raises(InvalidInput, match="Several"):
        kept.find("ev-")
    with pytest.raises(InvalidInput, match="ev-7"):
        kept.find("ev-7")
    with pytest.raises(InvalidInput, match="ev-7"):
        kept.change("ev-7", lambda plan: plan)


def test_of_two_that_are_entered_for_a_host_at_once_one_is_refused(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(PLAN, evacuation="ev-2", driver="cli-2")
    with opened() as store, opened() as beside:
        written = store.entries.put_all

        def write(entries: Iterable[Entry]) -> None:
            if not KeptEvacuations(beside.entries).all():
                KeptEvacuations(beside.entries).enter(other)  # between what the first one read and its write
            written(entries)

        monkeypatch.setattr(store.entries, "put_all", write)
        with pytest.raises(Refused, match="ev-2 of host-a is open") as refused:
            KeptEvacuations(store.entries).enter(PLAN)
        assert refused.value.code == "evacuation-open"
        assert KeptEvacuations(store.entries).all() == (other,)


def test_a_host_is_anothers_when_its_last_one_has_ended_or_is_forgotten(kept: KeptEvacuations) -> None:
    restore = replace(PLAN, kind=Kind.RESTORE)
    kept.enter(restore)
    kept.change("ev-1", lambda plan: replace(plan, ended=True))
    kept.enter(replace(restore, evacuation="ev-2"))
    with pytest.raises(Refused, match="ev-2 of host-a is open"):
        kept.enter(replace(restore, evacuation="ev-3"))
    kept.change("ev-2", lambda plan: replace(plan, ended=True))
    kept.prune(100.0)
    assert kept.all() == ()
    assert kept.enter(replace(restore, evacuation="ev-3")).evacuation == "ev-3"


def test_who_drives_one_writes_it_until_somebody_else_does(kept: KeptEvacuations) -> None:
    kept.enter(PLAN)
    with pytest.raises(Refused, match="driven by cli-1"):
        kept.claim("ev-1", "orchestrator", 12.0, sole=True)
    taken = kept.claim("ev-1", "orchestrator", 40.0)
    assert (taken.driver, driven(taken, 41.0), driven(taken, 60.0)) == ("orchestrator", True, False)
    assert not driven(replace(taken, heartbeat=86_400.0), 41.0)  # by a clock that is a day ahead
    with pytest.raises(Stale, match="driven by orchestrator"):
        kept.drive("ev-1", "cli-1", 42.0, lambda plan: replace(plan, ended=True))
    assert kept.claim("ev-1", "orchestrator-2", 42.0, sole=True).driver == "orchestrator-2"  # the leader's word
    kept.let_go("ev-1", "orchestrator")
    assert kept.find("ev-1").driver == "orchestrator-2"
    kept.let_go("ev-1", "orchestrator-2")
    assert kept.find("ev-1").driver == ""


def test_a_wish_to_cancel_is_not_lost_to_whoever_drives(kept: KeptEvacuations) -> None:
    kept.enter(PLAN)

    def change(plan: Evacuation) -> Evacuation:
        if not plan.cancel_requested:
            kept.request_cancel("ev-1")  # in the middle of it
        return replace(plan, parallel=3)

    after = kept.drive("ev-1", "cli-1", 11.0, change)
    assert (after.cancel_requested, after.parallel, after.updated_at) == (True, 3, 11.0)
    kept.drive("ev-1", "cli-1", 12.0, lambda plan: replace(plan, ended=True))
    with pytest.raises(Refused, match="has ended"):
        kept.request_cancel("ev-1")
    with pytest.raises(Refused, match="has ended"):
        kept.claim("ev-1", "cli-2", 100.0)


def test_what_nothing_changed_is_written_only_to_renew_the_claim(kept: KeptEvacuations, store: Store) -> None:
    kept.enter(PLAN)
    before = store.entries.get("evacuation/ev-1")
    kept.drive("ev-1", "cli-1", 10.5, lambda plan: plan)
    assert store.entries.get("evacuation/ev-1") == before
    assert kept.drive("ev-1", "cli-1", 12.0, lambda plan: plan) == replace(PLAN, heartbeat=12.0)


def test_what_another_version_wrote_keeps_nobody_from_the_others(kept: KeptEvacuations, store: Store) -> None:
    kept.enter(PLAN)
    store.entries.put("evacuation/ev-2", '{"kind": "levitate"}', version=0)
    assert kept.all() == (PLAN,)
    for ask in (kept.find, kept.request_cancel):
        with pytest.raises(Refused, match="ev-2 cannot be read"):
            ask("ev-2")


def test_the_last_one_that_emptied_a_host_is_never_forgotten(kept: KeptEvacuations) -> None:
    moves = (replace(PLAN.moves[0], outcome=Outcome.COMPLETED),)
    ended = replace(PLAN, moves=moves, ended=True)
    kept.enter(ended)
    kept.enter(replace(ended, evacuation="ev-2", created_at=20.0))
    kept.enter(replace(ended, evacuation="ev-3", kind=Kind.RESTORE, created_at=30.0))
    kept.enter(replace(ended, evacuation="ev-4", host="host-b", ended=False, moves=PLAN.moves))
    kept.prune(5.0)
    assert len(kept.all()) == 4
    kept.prune(100.0)
    assert {one.evacuation for one in kept.all()} == {"ev-2", "ev-4"}


def test_a_host_in_maintenance_is_excluded_unless_hosts_are_named(store: Store) -> None:
    assert set_maintenance(store.entries, "host-b", on=True)
    assert not set_maintenance(store.entries, "host-b", on=True)
    assert in_maintenance(store.entries) == {"host-b"}
    store.open_attempt(new(destination="host-c"))
    hosts = ("host-a", "host-b", "host-c")
    choice = choice_now(store, hosts)
    assert (set(choice.excluded), dict(choice.taking)) == ({"host-b"}, {"host-c": 1})
    assert set(choice_now(store, hosts, ("host-b",)).excluded) == {"host-a", "host-c"}
    assert set_maintenance(store.entries, "host-b", on=False)
    assert not set_maintenance(store.entries, "host-b", on=False)
    assert in_maintenance(store.entries) == set()
