"""What every store does, whichever keeps the attempts: the same tests of each."""

import multiprocessing
import sys
from dataclasses import replace
from multiprocessing.synchronize import Barrier

import pytest

from orchestrator.attempt import Asked, Fault, IllegalPhase, Notice, Outcome, Phase, Retry
from orchestrator.store.claim import CLAIM_SECONDS
from orchestrator.store.store import Ownership
from tests.orchestrator.stores import OpenStore, new
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import InvalidInput, Refused, Stale


@pytest.fixture
def test_what_is_written_is_read_back_whole(opened: OpenStore) -> None:
    row = new(
        error=Fault("timeout", "It took too long", "Give it more"),
        warnings=(Notice("slow-link", "The link is slow"),),
        expected=types_pb2.Expected(total_ms=12.5, rounds=3),
        report=source_pb2.AttemptReport(phase="begun", ram_bytes=1 << 40, rounds=[types_pb2.Round(round=1)]),
        asked=Asked(measure_ms=250, by_host=True),
    )
    with opened() as store:
        store.open_attempt(row)
    with opened() as store:
        assert store.get(row.attempt) == row


def test_one_machine_has_one_open_attempt_and_the_second_is_told_who_holds_it(opened: OpenStore) -> None:
    with opened() as store:
        first = store.open_attempt(new("first"))
        assert store.open_attempt(new("first")) == first
        with pytest.raises(Refused, match=r"first.*cli-1") as refusal:
            store.open_attempt(new("second"))
        assert refusal.value.code == "attempt-open"
        store.open_attempt(new("third", machine="m2"))
        store.save(first.to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        store.open_attempt(new("second"))


def test_events_have_no_gap_and_leave_through_the_outbox_in_order(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        for phase in (Phase.PREFLIGHT, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING):
            row = store.save(row.to(phase), 101.0)
        events = store.events(row.attempt)
        assert [event.sequence for event in events] == [1, 2, 3, 4]
        assert [event.phase for event in events] == [Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING]
        pending = store.pending("cli-1", 100)
        assert [(one.kind, one.sequence) for one in pending if one.kind == "event"] == [
            ("event", n) for n in range(1, 5)
        ]
        store.acknowledge("cli-1", pending[3].number)
        assert store.pending("cli-1", 100) == pending[4:]
        assert store.pending("somebody-else", 100) == ()


def test_an_ended_attempt_goes_nowhere(opened: OpenStore) -> None:
    with opened() as store:
        row = store.save(store.open_attempt(new()).to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        with pytest.raises(IllegalPhase):
            store.save(replace(row, phase=Phase.PREPARING), 102.0)
        with pytest.raises(Refused):
            store.claim(row.attempt, "cli-2", 1000.0)


def test_a_silent_driver_is_taken_over_with_the_next_term_and_cannot_write_any_more(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        with pytest.raises(Refused) as held:
            store.claim(row.attempt, "cli-2", 101.0)
        assert held.value.code == "attempt-held"
        taken = store.claim(row.attempt, "cli-2", 100.0 + CLAIM_SECONDS + 1)
        assert (taken.term, taken.driver) == (2, "cli-2")
        with pytest.raises(Stale):
            store.save(row.to(Phase.PREFLIGHT), 112.0)
        with pytest.raises(Stale):
            store.heartbeat(row, 112.0)
        assert {one.kind for one in store.pending("cli-2", 100)} == {"event", "state"}


def test_a_wish_to_cancel_survives_what_the_driver_writes(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        store.request_cancel(row.attempt)
        assert store.save(row.to(Phase.PREFLIGHT), 101.0).cancel_requested
        assert store.heartbeat(row, 102.0).cancel_requested


def test_owners_are_compared_by_epoch(opened: OpenStore) -> None:
    with opened() as store:
        assert store.record_owner(Ownership("m1", "guest", "host-b", 5), "cli-1")
        assert not store.record_owner(Ownership("m1", "guest", "host-c", 4), "cli-1")
        assert not store.record_owner(Ownership("m1", "guest", "host-c", 5), "cli-1")
        assert store.record_owner(Ownership("m1", "guest", "host-b", 5), "cli-1")
        assert store.owners() == (Ownership("m1", "guest", "host-b", 5),)
        assert [one.kind for one in store.pending("cli-1", 10)] == ["owner"]


def test_only_what_ended_long_ago_and_is_published_is_forgotten(opened: OpenStore) -> None:
    with opened() as store:
        open_row = store.open_attempt(new("open"))
        ended = store.open_attempt(new("ended", machine="m2"))
        store.save(ended.to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        assert store.prune(before=1000.0) == 0
        store.acknowledge("cli-1", store.pending("cli-1", 100)[-1].number)
        assert store.prune(before=50.0) == 0
        assert store.prune(before=1000.0) == 1
        assert [row.attempt for row in store.attempts(everything=True)] == [open_row.attempt]
        assert store.events("ended") == ()


def test_what_is_never_published_keeps_nothing_younger_from_being_forgotten(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.etcd.store.OPERATIONS", 2)
    with opened() as store:
        for number, driver in enumerate(["gone"] * 5 + ["cli-1"] * 3):
            row = store.open_attempt(new(f"{number}" * 8, machine=f"m{number}", driver=driver))
            store.save(row.to(Phase.REFUSED, Outcome.REFUSED), 101.0 + number)
        store.acknowledge("cli-1", store.pending("cli-1", 100)[-1].number)
        assert sum(store.prune(before=1000.0) for _ in range(4)) == 3
        assert {row.driver for row in store.attempts(everything=True)} == {"gone"}
        store.acknowledge("gone", store.pending("gone", 100)[-1].number)
        assert sum(store.prune(before=1000.0) for _ in range(4)) == 5  # from the oldest on again


def test_an_attempt_is_found_by_the_start_of_its_name(opened: OpenStore) -> None:
    with opened() as store:
        store.open_attempt(new("abc1", machine="m1"))
        store.open_attempt(new("abd2", machine="m2"))
        assert store.find("abc").attempt == "abc1"
        for start, code in (("ab", "ambiguous-attempt"), ("x", "unknown-attempt"), ("", "unknown-attempt")):
            with pytest.raises(InvalidInput) as error:
                store.find(start)
            assert error.value.code == code


def _enter(opened: OpenStore, number: int, barrier: Barrier) -> None:
    with opened() as store:
        barrier.wait()
        row = store.open_attempt(new(f"attempt-{number}", machine=f"m{number}", driver=f"cli-{number}"))
        for phase in (Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING):
            row = store.save(row.to(phase), 101.0)


def test_several_processes_write_at_once(opened: OpenStore) -> None:
    opened().close()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_enter, args=(opened, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with opened() as store:
        rows = store.attempts()
        assert len(rows) == 3
        for row in rows:
            assert [event.sequence for event in store.events(row.attempt)] == [1, 2, 3, 4]


def test_a_driver_that_comes_back_under_its_name_is_not_its_earlier_life(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        with pytest.raises(Refused):
            store.claim(row.attempt, "cli-1", 101.0)
        assert store.claim(row.attempt, "cli-1", 101.0, sole=True).term == 2
        with pytest.raises(Stale):
            store.save(row.to(Phase.PREFLIGHT), 102.0)


def test_a_claim_tells_the_state_again(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        store.acknowledge("cli-1", store.pending("cli-1", 100)[-1].number)
        store.claim(row.attempt, "cli-2", 1000.0)
        assert [one.kind for one in store.pending("cli-2", 10)] == ["state"]


def test_the_same_write_may_be_made_twice(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new(retry=Retry(left=1)))
        later = new("later", created_at=101.0, retry=Retry(earlier=(row.attempt,)))
        ended = replace(row.to(Phase.REFUSED, Outcome.REFUSED), retry=replace(row.retry, next="later"))
        owner = Ownership("m1", "guest", "host-b", 5)
        first = store.save(ended, 101.0, owner=owner, successor=later)
        told = store.pending("cli-1", 100)
        assert store.save(ended, 101.0, owner=owner, successor=later) == first
        assert store.pending("cli-1", 100) == told
        assert [row.attempt for row in store.attempts()] == ["later"]
        assert store.open_attempt_of("m1") == store.get("later") == later
        assert [len(store.events(one)) for one in (row.attempt, "later")] == [2, 1]


def test_what_a_claim_takes_over_is_published_by_its_new_driver_alone(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        other = store.open_attempt(new("other", machine="m2"))
        for phase in (Phase.PREFLIGHT, Phase.BEGINNING):
            row = store.save(row.to(phase), 101.0)
        store.claim(row.attempt, "cli-2", 1000.0)
        taken = store.pending("cli-2", 100)
        assert [one.sequence for one in taken if one.kind == "event"] == [1, 2, 3]
        assert {one.subject for one in taken} == {row.attempt}
        assert {one.subject for one in store.pending("cli-1", 100)} == {other.attempt}
        numbers = [one.number for one in taken]
        assert numbers == sorted(set(numbers))


def test_what_the_dead_left_unpublished_is_adopted_and_what_the_living_have_is_not(opened: OpenStore) -> None:
    with opened() as store:
        store.open_attempt(new("dead", machine="m1", driver="cli-dead", heartbeat=100.0))
        store.open_attempt(new("living", machine="m2", driver="cli-living", heartbeat=200.0))
        store.record_owner(Ownership("m3", "guest", "host-b", 1), "cli-dead")
        store.adopt_outbox("orchestrator", 201.0, CLAIM_SECONDS)
        assert store.pending("cli-dead", 100) == ()
        assert [one.kind for one in store.pending("orchestrator", 100)] == ["event", "state", "owner"]
        assert {one.subject for one in store.pending("cli-living", 100)} == {"living"}


def test_of_much_that_is_unpublished_the_oldest_comes_first_and_none_is_left_out(opened: OpenStore) -> None:
    with opened() as store:
        for number in range(230):
            store.record_owner(Ownership(f"m{number:03}", "guest", "host-b", 1), f"cli-{number % 2}")
        seen = []
        while found := store.pending("cli-0", 7):
            seen += [one.subject for one in found]
            store.acknowledge("cli-0", found[-1].number)
        assert seen == [f"m{number:03}" for number in range(0, 230, 2)]
        store.adopt_outbox("cli-0", 100.0, CLAIM_SECONDS)
        assert len(store.pending("cli-0", 1000)) == 115


def test_what_was_written_again_while_it_was_published_is_told_again(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        seen = store.pending("cli-1", 100)
        store.save(row.to(Phase.PREFLIGHT), 101.0)
        store.acknowledge("cli-1", seen[-1].number)
        assert {(one.kind, one.sequence) for one in store.pending("cli-1", 100)} == {("event", 2), ("state", 0)}


def test_a_claim_that_is_let_go_goes_on_in_the_next_term(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new())
        store.let_go(replace(row, term=7))
        assert store.get(row.attempt).driver == "cli-1"
        store.let_go(row)
        assert store.claim(row.attempt, "cli-2", 101.0).term == 2


def test_open_attempts_are_shown_newest_first_and_what_ended_on_demand(opened: OpenStore) -> None:
    with opened() as store:
        for number in range(60):
            store.open_attempt(new(f"attempt-{number:02}", machine=f"m{number}", created_at=100.0 + number))
        store.save(store.get("attempt-07").to(Phase.REFUSED, Outcome.REFUSED), 200.0)
        shown = [row.attempt for row in store.attempts()]
        assert shown == sorted(shown, reverse=True)
        assert len(shown) == 59
        assert len(store.attempts(everything=True)) == 60


def test_no_open_attempt_is_left_out_however_many_newer_ones_have_ended(opened: OpenStore) -> None:
    with opened() as store:
        for number in range(5):
            store.open_attempt(new(f"attempt-{number}", machine=f"m{number}", created_at=100.0 + number))
        for number in (1, 2, 3):
            store.save(store.get(f"attempt-{number}").to(Phase.REFUSED, Outcome.REFUSED), 200.0 + number)
        assert [row.attempt[-1] for row in store.attempts(limit=1)] == ["4", "0"]
        assert [row.attempt[-1] for row in store.attempts(everything=True, limit=1)] == ["4", "3", "0"]
        assert [row.attempt[-1] for row in store.attempts(everything=True)] == ["4", "3", "2", "1", "0"]
        assert [row.attempt[-1] for row in store.standing(202.0)] == ["4", "3", "0"]
        assert [row.attempt[-1] for row in store.standing(0.0)] == ["4", "3", "2", "1", "0"]
        assert store.open_attempt_of("m7") is None


def test_a_daemon_takes_over_what_another_daemon_left_and_leaves_a_command_its_own(opened: OpenStore) -> None:
    with opened() as store:
        store.open_attempt(new("daemon", machine="m1", driver="orchestrator-a-7000"))
        store.open_attempt(new("command", machine="m2", driver="cli-a-1"))
        assert store.claim("daemon", "orchestrator-b-7000", 101.0, sole=True).term == 2
        for sole in (False, True):
            with pytest.raises(Refused):
                store.claim("command", "orchestrator-b-7000", 101.0, sole=sole)


def _race(opened: OpenStore, number: int, barrier: Barrier) -> None:
    with opened() as store:
        barrier.wait()
        try:
            store.claim("raced", f"cli-{number}", 1000.0)
        except Refused:
            sys.exit(3)


def test_of_several_that_claim_at_once_one_gets_it(opened: OpenStore) -> None:
    with opened() as store:
        store.open_attempt(new("raced"))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_race, args=(opened, number, barrier)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(str(process.exitcode) for process in processes) == ["0", "3", "3"]
    with opened() as store:
        assert store.get("raced").term == 2


def test_a_wish_for_bandwidth_is_kept_whoever_writes_after_it(opened: OpenStore) -> None:
    with opened() as store:
        row = store.open_attempt(new(asked=Asked(measure_ms=250)))
        assert store.request_bandwidth(row.attempt, 7).asked == Asked(measure_ms=250, bandwidth=7)
        later = store.save(row.to(Phase.PREFLIGHT), 101.0)
        assert later.asked == Asked(measure_ms=250, bandwidth=7)
        claimed = store.claim(row.attempt, "cli-2", 101.0 + 2 * CLAIM_SECONDS)
        assert (claimed.asked.bandwidth, claimed.bandwidth_wanted) == (7, 7)
        store.request_bandwidth(row.attempt, 0)
        assert store.heartbeat(claimed, 200.0).asked.bandwidth == 0
        with pytest.raises(InvalidInput):
            store.request_bandwidth("nothing", 1)


def test_of_open_attempts_there_is_a_short_word(opened: OpenStore) -> None:
    with opened() as store:
        store.open_attempt(new("first", destination="host-x"))
        ended = store.open_attempt(new("second", machine="m2"))
        store.save(ended.to(Phase.REFUSED, Outcome.REFUSED), 101.0)
        store.request_cancel("first")
        store.request_bandwidth("first", 7)
        (row,) = store.open_rows()
        whole = store.get("first")
        assert (row.attempt, row.source, row.destination) == ("first", "host-a", "host-x")
        assert (row.phase, row.outcome) == (whole.phase, None)
        assert (row.driver, row.term, row.heartbeat) == (whole.driver, whole.term, whole.heartbeat)
        assert (row.cancel_requested, row.asked) == (True, Asked(bandwidth=7))


def test_where_one_machine_lives_is_told_without_the_others(opened: OpenStore) -> None:
    with opened() as store:
        store.record_owner(Ownership("m1", "guest", "host-b", 5), "cli-1")
        store.record_owner(Ownership("m2", "other", "host-c", 5), "cli-1")
        assert store.owner_of("m2") == Ownership("m2", "other", "host-c", 5)
        assert store.owner_of("m3") is None
