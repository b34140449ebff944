"""What is planned when an operator vouches that a host is off: every case of docs/recovery.md, without any host."""

import pytest

from orchestrator.diagnosis.views import Copy, HostView, SiteView, Told, copy_from
from orchestrator.recovery.fenced_plan import plan
from orchestrator.recovery.fenced_word import Act, Journalled, Plan, Word
from tests.orchestrator.recovery.journalled_hosts import (
    ATTEMPT,
    MACHINE,
    SECRET,
    STOP,
    Held,
    aborted,
    activating,
    active,
    gone,
    outgoing,
    owner,
    prepared,
    ready,
    released,
    replaced,
    retired,
    stopped,
    taken,
    whole,
)
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover import departure
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.record import Record

SILENT = Told(Unreachable("unreachable", "Nobody listens there", "Start it"))
ANSWERS = Told(version="0.2.0")
OWNER = owner()
BEGUN = outgoing(OWNER)
STOPPED = stopped(BEGUN)
RELEASED = released(STOPPED)
PREPARED = prepared(BEGUN)
READY = ready(PREPARED)
ACTIVE = active(activating(READY))


def host(name: str, record: Record | None = None, process: str = "alive", **facts: str) -> HostView:
    copies: dict[str, Copy] = {}
    if record is not None:
        copies = {record.machine: copy_from(name, Held(record, process, **facts).custody(record.machine))}
    return HostView(name, ANSWERS, ANSWERS, copies)


def site(*hosts: HostView) -> SiteView:
    """Three hosts, of which those that are not given are silent."""
    given = {one.host: one for one in hosts}
    names = ("host-a", "host-b", "host-c")
    return SiteView({name: given.get(name) or HostView(name, SILENT, SILENT) for name in names})


def word(fenced: str, journalled: Journalled | None = None, *, off: tuple[str, ...] = (), miss: bool = False) -> Word:
    journals = None if journalled is None else {MACHINE: journalled}
    return Word(fenced, off, miss, journals)


def acts(found: Plan) -> list[tuple[str, str]]:
    return [(one.act, one.host) for one in found.steps]


C = host("host-c")
THERE = {
    "released it": (RELEASED, READY, Act.HAND_OFF),
    "had stopped it": (STOPPED, READY, Act.RELEASE_AND_HAND_OFF),
    "had stopped it, and it is not verified here": (STOPPED, whole(PREPARED), Act.RELEASE_AND_HAND_OFF),
    "kept it": (aborted(STOPPED), READY, Act.DISCARD),
    "kept it, and the copy is not verified": (aborted(STOPPED), whole(PREPARED), Act.DISCARD),
    "lost it": (departure.lost(BEGUN, process=gone(BEGUN), destination=None, reason=""), READY, Act.DISCARD),
    "took it": (taken(RELEASED), READY, Act.DISCARD),
    "has begun anew": (outgoing(replaced(aborted(BEGUN), run_confirmed=True), attempt="b" * 8), READY, Act.DISCARD),
}


@pytest.mark.parametrize("case", THERE)
def test_the_journal_of_the_host_that_is_off_decides(case: str) -> None:
    there, here, act = THERE[case]
    found = plan(site(host("host-b", here), C), word("host-a", there))
    assert (acts(found), found.refused) == ([(act, "host-b")], ())
    (step,) = found.steps
    assert (step.missing, step.journalled) == ("", there)
    assert SECRET.hex() not in repr(step)


DISAGREEING = {
    "runs it still": (BEGUN, READY),
    "stopped it at another stop": (replaced(STOPPED, pause=STOP + 1), READY),
    "released it at another stop": (replaced(RELEASED, pause=STOP - 1), READY),
    "released what is not verified here": (RELEASED, whole(PREPARED)),
    "gave it away": (retired(RELEASED), READY),
    "holds another secret": (replaced(RELEASED, secret="00" * 32), READY),
    "holds no secret": (replaced(STOPPED, secret=""), READY),
}


@pytest.mark.parametrize("miss", [False, True])
@pytest.mark.parametrize("case", DISAGREEING)
def test_a_journal_that_does_not_fit_is_refused_also_where_writes_may_be_missing(case: str, miss: bool) -> None:
    there, here = DISAGREEING[case]
    found = plan(site(host("host-b", here), C), word("host-a", there, miss=miss))
    assert found.steps == ()
    assert [one.name for one in found.refused] == ["guest"]


@pytest.mark.parametrize("here", [READY, whole(PREPARED)])
@pytest.mark.parametrize("journalled", [None, JournalUnreadable(MACHINE, "torn")])
def test_without_a_journal_a_whole_copy_starts_only_where_writes_may_be_missing(
    here: Record, journalled: Journalled | None
) -> None:
    hosts = site(host("host-b", here), C)
    refused = plan(hosts, word("host-a", journalled))
    assert (refused.steps, len(refused.refused)) == ((), 1)
    assert "--may-miss-writes" in refused.refused[0].hint
    assert "--journal" in refused.refused[0].hint
    found = plan(hosts, word("host-a", journalled, miss=True))
    assert acts(found) == [(Act.TAKE_AT_DESTINATION, "host-b")]
    assert f"stop {STOP}" in found.steps[0].missing


def test_a_released_machine_is_taken_back_only_where_writes_may_be_missing() -> None:
    hosts = site(host("host-a", RELEASED), C)
    refused = plan(hosts, word("host-b"))
    assert "--may-miss-writes" in refused.refused[0].hint
    found = plan(hosts, word("host-b", miss=True))
    assert acts(found) == [(Act.TAKE_AT_SOURCE, "host-a")]
    assert found.steps[0].highest_seen == RELEASED.highest_epoch
    dead = plan(site(host("host-a", RELEASED, "gone"), C), word("host-b", miss=True))
    assert (dead.steps, len(dead.refused)) == ((), 1)


def test_the_highest_epoch_is_that_of_every_journal_that_was_seen() -> None:
    elsewhere = host("host-c", replaced(departure_of_long_ago(), highest_epoch=40), "gone")
    found = plan(site(host("host-a", RELEASED), elsewhere), word("host-b", miss=True))
    assert [one.highest_seen for one in found.steps] == [40]


def departure_of_long_ago() -> Record:
    return retired(released(stopped(outgoing(owner("host-c"), to="host-a", attempt="a" * 8))))


def test_a_host_that_answers_is_not_off() -> None:
    with pytest.raises(Refused, match="host-b answers and runs guest"):
        plan(site(host("host-a", RELEASED), host("host-b", ACTIVE), C), word("host-b", miss=True))
    with pytest.raises(Refused, match="host-b answers"):
        plan(site(host("host-a", RELEASED), host("host-b", READY), C), word("host-b", miss=True))


def test_a_host_that_has_proven_the_process_gone_in_its_start_may_answer() -> None:
    hosts = site(host("host-a", RELEASED), host("host-b", activating(READY), "gone"), C)
    refused = plan(hosts, word("host-b"))
    assert (refused.steps, "--may-miss-writes" in refused.refused[0].hint) == ((), True)
    assert acts(plan(hosts, word("host-b", miss=True))) == [(Act.TAKE_AT_SOURCE, "host-a")]


def test_another_silent_host_has_to_be_vouched_for_where_writes_may_be_missing() -> None:
    hosts = site(host("host-b", READY))
    with pytest.raises(Refused, match="host-c is silent") as refused:
        plan(hosts, word("host-a", miss=True))
    assert "--also-off host-c" in refused.value.hint
    assert acts(plan(hosts, word("host-a", off=("host-c",), miss=True))) == [(Act.TAKE_AT_DESTINATION, "host-b")]
    with pytest.raises(Refused, match="host-c answers"):
        plan(site(host("host-b", READY), C), word("host-a", off=("host-c",), miss=True))
    # With the source's own release nobody else's copy counts.
    assert acts(plan(hosts, word("host-a", RELEASED))) == [(Act.HAND_OFF, "host-b")]


def test_a_machine_that_another_host_has_since_is_not_started_twice() -> None:
    newer = replaced(taken(RELEASED), owned_epoch=9, highest_epoch=9, attempt=None)
    found = plan(site(host("host-b", READY), host("host-c", newer)), word("host-a", miss=True))
    assert (found.steps, "host-c" in found.refused[0].reason) == ((), True)


def test_the_new_owner_of_a_machine_from_a_host_that_is_off_may_move_it_again() -> None:
    found = plan(site(host("host-b", ACTIVE), C), word("host-a"))
    assert (acts(found), found.refused) == ([(Act.NOTE_RETIRED, "host-b")], ())
    assert plan(site(host("host-b", replaced(ACTIVE, former_retired=True)), C), word("host-a")).steps == ()


def test_what_agents_settle_alone_is_left_to_them() -> None:
    assert acts(plan(site(host("host-a", BEGUN), C), word("host-b"))) == [(Act.GO_ON, "host-a")]
    assert acts(plan(site(host("host-a", STOPPED), C), word("host-b"))) == [(Act.GO_ON, "host-a")]
    assert acts(plan(site(host("host-b", PREPARED), C), word("host-a"))) == [(Act.GO_ON, "host-b")]
    assert acts(plan(site(host("host-b", READY, "gone"), C), word("host-a"))) == [(Act.GO_ON, "host-b")]
    assert acts(plan(site(host("host-b", activating(READY)), C), word("host-a"))) == [(Act.GO_ON, "host-b")]


GONE_WITH_ITS_SOURCE = (host("host-b", activating(READY), "gone"), C)
GONE_AT_BOTH = (host("host-a", RELEASED, "gone"), host("host-b", activating(READY), "gone"), C)


@pytest.mark.parametrize(("hosts", "fenced"), [(GONE_WITH_ITS_SOURCE, "host-a"), (GONE_AT_BOTH, "host-b")])
def test_a_machine_of_which_no_image_is_left_is_written_off_only_by_name(
    hosts: tuple[HostView, ...], fenced: str
) -> None:
    refused = plan(site(*hosts), word(fenced))
    assert (refused.steps, "--may-miss-writes" in refused.refused[0].hint) == ((), True)
    found = plan(site(*hosts), word(fenced, miss=True))
    assert (acts(found), found.refused) == ([(Act.WRITE_OFF, "host-b")], ())
    elsewhere = replaced(taken(RELEASED), owned_epoch=9, highest_epoch=9, attempt=None)
    others = plan(site(*hosts[:-1], host("host-c", elsewhere)), word(fenced, miss=True))
    assert (others.steps, "host-c" in others.refused[0].reason) == ((), True)


def test_machines_whose_only_copy_is_there_are_named() -> None:
    given = plan(site(host("host-a", retired(RELEASED), "gone"), C), word("host-b"))
    assert (acts(given), given.acts) == ([(Act.NOTHING, "host-b")], ())
    stored = Word("host-b", owned={"m": "web"})
    assert [(one.name, one.act) for one in plan(site(host("host-a", OWNER), C), stored).steps] == [("web", Act.NOTHING)]


def test_machines_that_have_nothing_to_do_with_the_host_are_left_alone() -> None:
    assert plan(site(host("host-a", OWNER), host("host-b", ACTIVE)), word("host-c")) == Plan((), ())


def test_only_the_machines_that_were_named_are_planned() -> None:
    hosts = site(host("host-b", READY), C)
    assert plan(hosts, word("host-a", RELEASED), {"other"}).steps == ()
    assert len(plan(hosts, word("host-a", RELEASED), {MACHINE}).steps) == 1
    assert plan(hosts, word("host-a", RELEASED)).steps[0].pair is not None
    assert ATTEMPT in repr(plan(hosts, word("host-a", RELEASED)))


LATER = prepared(outgoing(replaced(aborted(STOPPED), run_confirmed=True), attempt="b" * 8))


@pytest.mark.parametrize("later", [LATER, whole(LATER), ready(LATER), activating(ready(LATER))])
def test_an_older_copy_is_not_taken_beside_one_of_a_later_attempt(later: Record) -> None:
    # Its source, when it returns, may find it STOPPED with that copy READY, and release to it: two would run.
    found = plan(site(host("host-b", READY), host("host-c", later)), word("host-a", miss=True))
    older = [one for one in found.refused if "later attempt" in one.reason]
    assert [one.hint.count("host-c") for one in older] == [1]
    assert all(one.host == "host-c" for one in found.steps)


def test_what_is_taken_stands_above_what_the_store_has_recorded() -> None:
    said = Word("host-a", may_miss_writes=True, epochs={MACHINE: 40})
    (step,) = plan(site(host("host-b", READY), C), said).steps
    assert (step.act, step.highest_seen) == (Act.TAKE_AT_DESTINATION, 40)
