"""Each operation's "only if": what is refused, with which code, and what asking twice answers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from vm_migration.errors import InvalidInput, MigrationError, Missed, Refused, Stale, Unauthorised
from vm_migration.handover import arrival, departure, ownership
from vm_migration.handover.evidence import Absence, InstanceGone, ProcessAnswer, SideView, view
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import OPEN, OWNING, IllegalTransition, State

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
A, B = "5f0e8d0a-1111-4222-8333-444455556666", "6f0e8d0a-1111-4222-8333-444455556666"
SECRET = bytes(range(32))
GONE = InstanceGone("i1")


def change(record: Record, **facts: object) -> Record:
    return Record(**{**{name: getattr(record, name) for name in record.__struct_fields__}, **facts})


OWNER = change(
    ownership.create(MACHINE, instance="i1", was_running=True, specification="{}"), run_confirmed=True, controller=4
)
KEY = AttemptKey(MACHINE, A, 2, 7)


def begin(record: Record = OWNER, attempt: str = A, epoch: int = 0, term: int = 7) -> Record:
    key = AttemptKey(MACHINE, attempt, epoch, term)
    return departure.begin(record, key, destination="host-b", was_running=True, secret=SECRET, policy="{}")


OUTGOING = begin()
STOPPED = departure.stopped(OUTGOING, pause=1, bound_ms=1000)
AT_REST = ProcessAnswer("i1", 4, running=False, pause=1)
RUNNING = replace(AT_REST, running=True)
PEER_READY = SideView(A, State.READY, pause=1)
RELEASED = departure.released(STOPPED, destination=PEER_READY, process=AT_REST)
ABORTED = departure.aborted(STOPPED, reason="asked", process=AT_REST)
RECLAIMED = departure.reclaimed(RELEASED, destination=SideView(A, State.LOST), process=AT_REST)
RETIRED = ownership.retired(RELEASED, SideView(A, State.ACTIVE, highest_epoch=2))


def prepare(record: Record | None = None, key: AttemptKey = KEY) -> Record:
    return arrival.prepared(record, key, source="host-a", secret_hash=secret_hash(SECRET), specification="{}")


PREPARED = ownership.bound_to(change(prepare(), controller=4), "i1")
READY = arrival.ready(PREPARED, pause=1, was_running=True)
ACTIVATING = arrival.activating(READY, pause=1, secret=SECRET)
ACTIVE = arrival.active(ACTIVATING, process=RUNNING)
DISCARDED = arrival.discarded(READY, source=SideView(A, State.ABORTED, pause=1), reason="aborted")


def refused(code: str, act: Callable[[], Record], kind: type[MigrationError] = Refused) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.code == code
    return caught.value.message


def test_the_numbers_of_an_attempt() -> None:
    assert (OUTGOING.epoch, OUTGOING.highest_epoch, OUTGOING.owned_epoch, OUTGOING.term) == (2, 2, 1, 7)
    assert OUTGOING.secret_hash == secret_hash(SECRET).hex()
    assert (ABORTED.highest_epoch, ABORTED.owned_epoch, ABORTED.secret) == (2, 1, "")
    assert begin(change(ABORTED, run_confirmed=True), B).epoch == 3
    assert (RELEASED.released_epoch, RELEASED.secret) == (2, SECRET.hex())
    assert (RECLAIMED.owned_epoch, RECLAIMED.highest_epoch, RECLAIMED.epoch) == (3, 3, 2)
    assert (ACTIVE.owned_epoch, ACTIVE.former_retired, ACTIVE.run_confirmed) == (2, False, True)


def test_pause_bounds() -> None:
    assert [departure.pause_bound_ms(limit) for limit in (0, 300, 500)] == [1000, 1000, 1500]
    assert [departure.forced_pause_bound_ms(expected) for expected in (0, 3000, 4000)] == [10_000, 10_000, 12_000]


def test_a_call_must_match_the_journal_exactly() -> None:
    assert ownership.match(OUTGOING, KEY) is OUTGOING
    assert ownership.match(OUTGOING, AttemptKey(MACHINE, A, 2, 9)).term == 9
    refused("stale-term", lambda: ownership.match(OUTGOING, AttemptKey(MACHINE, A, 2, 6)), Stale)
    refused("stale-epoch", lambda: ownership.match(OUTGOING, AttemptKey(MACHINE, A, 1, 7)), Stale)
    refused("stale-epoch", lambda: ownership.match(OUTGOING, AttemptKey(MACHINE, B, 2, 7)), Stale)
    refused("missed-epoch", lambda: ownership.match(OUTGOING, AttemptKey(MACHINE, A, 3, 7)), Missed)
    refused("unknown-machine", lambda: ownership.match(OUTGOING, AttemptKey("other", A, 2, 7)))


def test_begin_asked_twice_answers_and_another_is_refused_with_the_holder() -> None:
    assert begin(OUTGOING) is OUTGOING
    assert begin(OUTGOING, epoch=2) is OUTGOING
    assert begin(ABORTED) is ABORTED
    assert begin(OUTGOING, term=8).term == 8
    refused("stale-epoch", lambda: begin(OUTGOING, epoch=3), Stale)
    refused("stale-term", lambda: begin(OUTGOING, term=6), Stale)
    message = refused("attempt-open", lambda: begin(OUTGOING, B))
    assert A in message
    assert "host-b" in message


def test_begin_waits_for_what_is_owed() -> None:
    refused("run-state-owed", lambda: begin(ABORTED, B))
    refused("run-state-owed", lambda: begin(change(OWNER, run_confirmed=False)))
    refused("run-state-owed", lambda: begin(change(OWNER, instance="")))
    refused("former-source-open", lambda: begin(ACTIVE, B))
    assert begin(ownership.former_retired(ACTIVE), B).epoch == 3
    refused("attempt-over", lambda: begin(begin_again(), A), Stale)
    refused("attempt-over", lambda: begin(OWNER, epoch=1), Stale)
    refused("missed-epoch", lambda: begin(OWNER, epoch=3), Missed)
    for record in (RETIRED, DISCARDED):
        refused("not-owner", partial(begin, record, B))


def begin_again() -> Record:
    later = begin(change(ABORTED, run_confirmed=True), B)
    return change(departure.aborted(later, reason=""), run_confirmed=True)


def test_a_stop_is_above_every_earlier_one() -> None:
    assert departure.stopped(STOPPED, pause=1, bound_ms=5) is STOPPED
    refused("wrong-pause", lambda: departure.stopped(STOPPED, pause=2, bound_ms=5), Stale)
    refused("wrong-pause", lambda: departure.stopped(OUTGOING, pause=0, bound_ms=5), Stale)
    with pytest.raises(IllegalTransition):
        departure.stopped(OWNER, pause=1, bound_ms=5)


def test_release_only_with_ready_of_that_pause_and_a_process_confirmed_at_it_or_gone() -> None:
    def release(peer: SideView = PEER_READY, process: ProcessAnswer | InstanceGone = AT_REST) -> Record:
        return departure.released(STOPPED, destination=peer, process=process)

    assert departure.released(RELEASED, destination=PEER_READY, process=RUNNING) is RELEASED
    assert release(process=GONE).state is State.RELEASED
    refused("wrong-pause", lambda: release(replace(PEER_READY, pause=2)))
    refused("wrong-pause", lambda: release(replace(PEER_READY, sight=State.PREPARED)))
    refused("wrong-pause", lambda: release(replace(PEER_READY, sight=Absence.UNREACHABLE)))
    refused("no-proof", lambda: release(replace(PEER_READY, attempt=B)))
    refused("process-not-confirmed", lambda: release(process=RUNNING))
    refused("process-not-confirmed", lambda: release(process=replace(AT_REST, pause=2)))
    refused("process-not-confirmed", lambda: release(process=replace(AT_REST, instance="i2")))
    refused("process-not-confirmed", lambda: release(process=InstanceGone("i2")))
    refused("stale-controller", lambda: release(process=replace(AT_REST, controller=3)), Stale)
    refused("wrong-state", lambda: departure.released(OUTGOING, destination=PEER_READY, process=AT_REST))


def test_an_abort_in_stopped_needs_the_process_and_none_comes_after_released() -> None:
    assert departure.aborted(OUTGOING, reason="timer").state is State.ABORTED
    assert departure.aborted(ABORTED, reason="again") is ABORTED
    assert len(departure.aborted(OUTGOING, reason="x" * 9999).reason) == 512
    refused("process-not-confirmed", lambda: departure.aborted(STOPPED, reason="timer"))
    refused("stale-controller", lambda: departure.aborted(STOPPED, reason="", process=replace(AT_REST, controller=3)))
    refused("wrong-state", lambda: departure.aborted(RELEASED, reason="", process=AT_REST), IllegalTransition)


def test_reclaim_only_on_the_destinations_lost() -> None:
    for sight in (State.READY, State.DISCARDED, State.ACTIVE, *Absence):
        refused(
            "no-proof",
            partial(departure.reclaimed, RELEASED, destination=SideView(A, sight), process=AT_REST),
        )
    refused(
        "process-not-confirmed",
        lambda: departure.reclaimed(
            RELEASED, destination=SideView(A, State.LOST), process=replace(AT_REST, instance="i2")
        ),
    )


@pytest.mark.parametrize(
    ("record", "enough"),
    [
        (OUTGOING, {None, State.READY, State.LOST, State.DISCARDED, Absence.PASSED, Absence.UNREACHABLE}),
        (STOPPED, {State.LOST, State.DISCARDED, Absence.PASSED}),
        (RELEASED, {State.LOST}),
    ],
)
def test_a_source_is_lost_only_when_no_whole_copy_can_be_at_the_destination(
    record: Record, enough: set[State | Absence | None]
) -> None:
    for sight in (None, State.READY, State.LOST, State.DISCARDED, State.ACTIVE, *Absence):
        peer = None if sight is None else SideView(A, sight)
        if sight in enough:
            assert departure.lost(record, process=GONE, destination=peer, reason="").state is State.LOST
        elif record is not OUTGOING:
            refused("no-proof", partial(departure.lost, record, process=GONE, destination=peer, reason=""))
    refused(
        "process-not-confirmed",
        lambda: departure.lost(record, process=InstanceGone("i2"), destination=None, reason=""),
    )


def test_lost_belongs_to_each_role_alone() -> None:
    refused("wrong-state", lambda: departure.lost(READY, process=GONE, destination=None, reason=""), IllegalTransition)
    for record in (ACTIVATING, ACTIVE, OUTGOING, OWNER):
        refused("wrong-state", partial(arrival.lost, record, process=GONE, reason=""), IllegalTransition)
    assert arrival.lost(READY, process=GONE, reason="").state is State.LOST
    refused("process-not-confirmed", lambda: arrival.lost(READY, process=InstanceGone("i2"), reason=""))


def test_an_operators_lost_names_no_attempt_and_stands_above_every_epoch() -> None:
    def lost(record: Record, instance: str = "i1") -> Record:
        return ownership.lost_by_word(record, highest_seen=11, process=InstanceGone(instance), reason="both gone")

    ended = lost(ACTIVATING)
    assert (ended.state, ended.attempt, ended.highest_epoch, ended.owned_epoch) == (State.LOST, None, 12, 12)
    assert A in ended.past_attempts
    assert lost(ended) is ended
    assert view(ended, A, KEY.epoch).sight is Absence.ABOVE
    refused("process-not-confirmed", lambda: lost(ACTIVATING, "i2"))
    for record in (
        PREPARED,
        READY,
        ACTIVE,
        RELEASED,
        OWNER,
        departure.lost(OUTGOING, process=GONE, destination=None, reason=""),
    ):
        refused("wrong-state", partial(lost, record), IllegalTransition)


def test_what_a_destination_notes_of_its_source_ends_with_its_attempt() -> None:
    noted = arrival.ready(PREPARED, pause=1, was_running=True, source_sequence=40)
    begun = arrival.activating(noted, pause=1, secret=SECRET)
    assert [arrival.source_sequence(each) for each in (noted, begun, READY, OUTGOING)] == [40, 40, 0, 0]
    answer = ProcessAnswer(begun.instance, begun.controller, running=True, pause=1)
    above = SideView(A, State.TAKEN, highest_epoch=9)
    # The source agent takes what stands in `policy` at an end for the terms of an attempt of its own.
    for ended in (
        arrival.active(begun, process=answer),
        arrival.discarded(noted, source=SideView(A, State.ABORTED, pause=1), reason=""),
        arrival.lost(noted, process=GONE, reason=""),
        ownership.retired(begun, above),
        ownership.taken(noted, highest_seen=9, process=answer, reason=""),
        ownership.lost_by_word(begun, highest_seen=9, process=GONE, reason=""),
    ):
        assert ended.policy == ""
    assert ownership.retired(change(RELEASED, policy="terms"), above).policy == "terms"


def test_prepare_is_refused_where_the_machine_is_and_at_an_epoch_that_is_over() -> None:
    later = AttemptKey(MACHINE, B, 9, 1)
    assert prepare(PREPARED) is PREPARED
    assert prepare(READY) is READY
    assert prepare(RETIRED, later).epoch == 9
    assert prepare(DISCARDED, later).former_retired is False
    refused("attempt-over", lambda: prepare(DISCARDED), Stale)
    refused("attempt-open", lambda: prepare(PREPARED, later))
    refused("machine-exists", lambda: prepare(OWNER, later))
    refused("stale-epoch", lambda: prepare(RETIRED, AttemptKey(MACHINE, B, 2, 1)), Stale)
    refused("stale-epoch", lambda: prepare(READY, AttemptKey(MACHINE, A, 3, 7)), Stale)
    refused("stale-term", lambda: prepare(READY, AttemptKey(MACHINE, A, 2, 6)), Stale)
    refused("epoch", lambda: prepare(None, AttemptKey(MACHINE, A, 0, 1)), InvalidInput)
    refused("unknown-machine", lambda: prepare(RETIRED, AttemptKey("other", B, 9, 1)))


def test_what_a_host_once_owned_and_released_outlives_later_attempts() -> None:
    back = prepare(RETIRED, AttemptKey(MACHINE, B, 9, 1))
    assert (back.owned_epoch, back.released_epoch, back.highest_epoch) == (1, 2, 9)
    assert back.past_attempts == (A,)


def test_ready_is_of_the_pause_whose_delta_is_whole() -> None:
    whole = arrival.received_whole(PREPARED, pause=1)
    assert whole.whole
    assert arrival.received_whole(whole, pause=1) is whole
    assert arrival.ready(READY, pause=1, was_running=False) is READY
    refused("wrong-pause", lambda: arrival.ready(whole, pause=2, was_running=True))
    refused("wrong-pause", lambda: arrival.ready(READY, pause=2, was_running=True))
    refused("wrong-pause", lambda: arrival.received_whole(whole, pause=2))


def test_activation_on_the_secret_and_on_nothing_else() -> None:
    assert arrival.activating(ACTIVATING, pause=1, secret=SECRET) is ACTIVATING
    assert arrival.activating(ACTIVE, pause=1, secret=SECRET) is ACTIVE
    for record in (READY, ACTIVATING, ACTIVE):
        for wrong in (b"", SECRET[:-1], bytes(32)):
            refused(
                "wrong-secret",
                partial(arrival.activating, record, pause=1, secret=wrong),
                Unauthorised,
            )
    refused("wrong-pause", lambda: arrival.activating(READY, pause=2, secret=SECRET))
    for record in (PREPARED, DISCARDED):
        refused("wrong-state", partial(arrival.activating, record, pause=1, secret=SECRET), IllegalTransition)


def test_active_only_when_the_process_does_what_the_attempt_owes() -> None:
    assert arrival.active(ACTIVE, process=AT_REST) is ACTIVE
    refused("process-not-confirmed", lambda: arrival.active(ACTIVATING, process=AT_REST))
    refused("stale-controller", lambda: arrival.active(ACTIVATING, process=replace(RUNNING, controller=3)), Stale)
    paused = change(ACTIVATING, was_running=False)
    assert arrival.active(paused, process=AT_REST).state is State.ACTIVE


def test_an_image_is_discarded_only_on_proof() -> None:
    proofs = {State.ABORTED, State.LOST, State.TAKEN, Absence.PASSED, Absence.ABOVE}
    for sight in (*State, *Absence):
        for record in (PREPARED, READY):
            if sight in proofs:
                done = arrival.discarded(record, source=SideView(A, sight, pause=1), reason="")
                assert done.state is State.DISCARDED
            else:
                refused(
                    "no-proof",
                    partial(arrival.discarded, record, source=SideView(A, sight), reason=""),
                )
    refused("no-proof", lambda: arrival.discarded(READY, source=SideView(B, State.ABORTED), reason=""))
    # A source whose journal was put back to before its stop has forgotten whose the only whole copy is.
    refused("journal-rolled-back", lambda: arrival.discarded(READY, source=SideView(A, State.LOST), reason=""), Stale)
    assert arrival.discarded(PREPARED, source=SideView(A, State.LOST), reason="").state is State.DISCARDED
    assert arrival.discarded(READY, source=SideView(A, Absence.PASSED, held=False), reason="").policy == ""
    refused("wrong-state", lambda: arrival.discarded(ACTIVATING, source=SideView(A, State.ABORTED), reason=""))


def test_only_what_was_never_whole_is_given_up() -> None:
    whole = arrival.received_whole(PREPARED, pause=1)
    assert arrival.given_up(PREPARED, reason="").state is State.DISCARDED
    assert arrival.given_up(DISCARDED, reason="") is DISCARDED
    assert arrival.given_up(whole, reason="", mismatched=True).state is State.DISCARDED
    refused("no-proof", lambda: arrival.given_up(whole, reason=""))
    refused("no-proof", lambda: arrival.given_up(READY, reason="", mismatched=True))


def test_retire_on_active_or_on_a_higher_taken() -> None:
    assert ownership.retired(RETIRED, SideView(A, State.LOST)) is RETIRED
    assert RETIRED.secret == ""
    assert RETIRED.instance == "i1"
    higher = SideView(A, State.TAKEN, highest_epoch=9)
    for record in (OWNER, OUTGOING, STOPPED, RELEASED, ABORTED, ACTIVATING, ACTIVE):
        retired = ownership.retired(record, higher)
        assert (retired.state, retired.highest_epoch) == (State.RETIRED, 9)
        lower = replace(higher, highest_epoch=max(record.owned_epoch, record.epoch))
        refused("no-proof", partial(ownership.retired, record, lower))
    for sight in (State.READY, State.ACTIVATING, Absence.UNREACHABLE):
        refused("no-proof", partial(ownership.retired, RELEASED, SideView(A, sight, highest_epoch=9)))
    refused("no-proof", lambda: ownership.retired(RELEASED, SideView(B, State.ACTIVE, highest_epoch=9)))
    refused("no-proof", lambda: ownership.retired(STOPPED, SideView(A, State.ACTIVE, highest_epoch=2)))


def test_taken_is_above_any_epoch_seen() -> None:
    taken = ownership.taken(READY, highest_seen=11, process=AT_REST, reason="recover")
    assert (taken.state, taken.owned_epoch, taken.highest_epoch, taken.run_confirmed) == (State.TAKEN, 12, 12, False)
    assert ownership.taken(RELEASED, highest_seen=0, process=AT_REST, reason="").owned_epoch == 3
    assert ownership.taken(taken, highest_seen=99, process=AT_REST, reason="") is taken
    for record in (PREPARED, OUTGOING, STOPPED, RETIRED, ACTIVATING):
        refused(
            "wrong-state",
            partial(ownership.taken, record, highest_seen=0, process=AT_REST, reason=""),
            IllegalTransition,
        )


def test_pause_resume_and_destroy_are_refused_while_an_attempt_is_open() -> None:
    for record in (OUTGOING, STOPPED, RELEASED, PREPARED, READY, ACTIVATING):
        refused("attempt-open", partial(ownership.owe_run_state, record, running=False))
        refused("attempt-open", partial(ownership.destroyed, record))
    paused = ownership.owe_run_state(OWNER, running=False)
    assert not paused.run_confirmed
    assert ownership.owe_run_state(OWNER, running=True) is OWNER
    refused("run-state-owed", lambda: ownership.run_confirmed(paused, RUNNING))
    assert ownership.run_confirmed(paused, AT_REST).run_confirmed
    tomb = ownership.destroyed(ABORTED)
    assert (tomb.state, tomb.attempt, tomb.highest_epoch) == (State.DESTROYED, None, 3)
    assert ownership.destroyed(tomb) is tomb
    refused("not-owner", lambda: ownership.destroyed(RETIRED))


def test_one_process_holds_the_image() -> None:
    fresh = prepare()
    bound = ownership.bound_to(fresh, "i9")
    assert ownership.bound_to(bound, "i9") is bound
    refused("process-exists", lambda: ownership.bound_to(bound, "i8"))


def test_closed_open_and_owning() -> None:
    for state in State:
        record = change(OUTGOING, state=state)
        assert record.closed is (state not in OPEN)
        assert record.open_attempt == (A if state in OPEN else None)
        assert record.owns is (state in OWNING)
