"""What the doctor finds in journals and processes, and where it says that a machine is; no host is asked."""

from dataclasses import replace

import pytest

from orchestrator.diagnosis.diagnosis import agreed, diagnosis
from orchestrator.diagnosis.finding import Code
from orchestrator.diagnosis.views import HostView, Leftover, SiteView, Told, copy_from, merged
from tests.orchestrator.recovery.journalled_hosts import (
    MACHINE,
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
from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover import arrival, departure
from vm_migration.handover.ownership import destroyed
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

ANSWERS = Told(version=VERSION)
SILENT = Told(Unreachable("unreachable", "Nobody listens there", "Start it"))
OWNER = owner()
BEGUN = outgoing(OWNER)
STOPPED = stopped(BEGUN)
RELEASED = released(STOPPED)
ABORTED = replaced(aborted(BEGUN), run_confirmed=True)
PREPARED = prepared(BEGUN)
READY = ready(PREPARED)
ACTIVE = active(activating(READY))
SETTLED = replaced(ACTIVE, former_retired=True)
UPDATE = '{"update": {"mode": "transfer", "predecessor": "old", "successor": "new"}}'
UPDATED = replaced(OWNER, state=State.RECLAIMED, peer="host-a", attempt="an update", epoch=7, policy=UPDATE)
DISCARDED = arrival.given_up(PREPARED, reason="over")
LOST = departure.lost(BEGUN, process=gone(BEGUN), destination=None, reason="it died")

Where = tuple[str | None, str] | None


def host(name: str, record: Record | None = None, process: str = "alive", **facts: str) -> HostView:
    copies = {} if record is None else {MACHINE: copy_from(name, Held(record, process, **facts).custody(MACHINE))}
    return HostView(name, ANSWERS, ANSWERS, copies)


def silent(name: str) -> HostView:
    return HostView(name, SILENT, SILENT)


def site(*hosts: HostView) -> SiteView:
    return SiteView({one.host: one for one in hosts})


def a(record: Record, process: str = "alive", **facts: str) -> HostView:
    return host("host-a", record, process, **facts)


def b(record: Record, process: str = "alive", **facts: str) -> HostView:
    return host("host-b", record, process, **facts)


A, B = silent("host-a"), silent("host-b")
SETTLED_SITES: dict[str, tuple[HostView, HostView, Where]] = {
    "runs": (a(OWNER), host("host-b"), ("host-a", "running")),
    "is paused": (a(replaced(OWNER, was_running=False), run_state="paused"), host("host-b"), ("host-a", "paused")),
    "moved": (a(retired(RELEASED), "gone"), b(SETTLED), ("host-b", "running")),
    "stayed": (a(ABORTED), b(DISCARDED, "gone"), ("host-a", "running")),
    "was lost": (a(LOST, "gone"), b(DISCARDED, "gone"), (None, "lost")),
    "was updated": (a(UPDATED), host("host-b"), ("host-a", "running")),
    "was taken": (a(taken(RELEASED)), b(DISCARDED, "gone"), ("host-a", "running")),
}
UNSETTLED_SITES: dict[str, tuple[HostView, HostView, set[Code], Where]] = {
    "is on its way": (a(BEGUN), b(PREPARED), {Code.ATTEMPT_OPEN}, ("host-a", "moving")),
    "is being updated": (
        a(replaced(BEGUN, peer="host-a", policy='{"update": {"mode": "transfer"}}')),
        host("host-b"),
        {Code.ATTEMPT_OPEN},
        ("host-a", "moving"),
    ),
    "is its new process's": (
        a(replaced(RELEASED, peer="host-a", policy=UPDATE), run_state="paused"),
        host("host-b"),
        {Code.ATTEMPT_OPEN},
        (None, "moving"),
    ),
    "stands still on its way": (a(STOPPED), b(PREPARED), {Code.ATTEMPT_OPEN}, ("host-a", "moving")),
    "comes from a silent host": (A, b(PREPARED), {Code.ATTEMPT_OPEN, Code.HOST_SILENT}, (None, "moving")),
    "runs twice": (a(OWNER), b(SETTLED), {Code.TWO_RUNNING, Code.CONTRADICTION}, ("host-b", "contradiction")),
    "was released and runs all the same": (
        a(RELEASED, run_state="running"),
        b(READY),
        {Code.HANDOVER_WAITING, Code.STRAY_RUN},
        (None, "unresolved"),
    ),
    "runs at both while it was released": (
        a(RELEASED, run_state="running"),
        b(ACTIVE),
        {Code.TWO_RUNNING, Code.STRAY_RUN, Code.HANDOVER_WAITING},
        ("host-b", "contradiction"),
    ),
    "runs before it was given": (
        a(STOPPED),
        b(READY, run_state="running"),
        {Code.ATTEMPT_OPEN, Code.STRAY_RUN},
        ("host-a", "moving"),
    ),
    "kept and given": (
        a(ABORTED, run_state="paused"),
        b(ACTIVE, run_state="paused"),
        {Code.CONTRADICTION},
        ("host-b", "contradiction"),
    ),
    "taken over while its host was away": (
        a(taken(RELEASED)),
        b(ACTIVE, run_state="paused"),
        {Code.OUTRANKED},
        ("host-a", "contradiction"),
    ),
    "died while it was started": (
        a(RELEASED),
        b(activating(READY), "gone"),
        {Code.ACTIVATION_UNKNOWN},
        (None, "unresolved"),
    ),
    "waits for its source": (A, b(READY), {Code.HANDOVER_WAITING, Code.HOST_SILENT}, (None, "unresolved")),
    "is whole and waits": (A, b(whole(PREPARED)), {Code.HANDOVER_WAITING, Code.HOST_SILENT}, (None, "unresolved")),
    "waits for its destination": (a(RELEASED), B, {Code.HANDOVER_WAITING, Code.HOST_SILENT}, (None, "unresolved")),
    "was released and is not started": (a(RELEASED), b(READY), {Code.HANDOVER_WAITING}, (None, "unresolved")),
    "is being started": (a(RELEASED), b(activating(READY)), {Code.HANDOVER_WAITING}, (None, "unresolved")),
    "died at its stop": (a(STOPPED, "gone"), b(READY), {Code.HANDOVER_WAITING}, ("host-a", "unresolved")),
    "died on its way": (a(BEGUN, "gone"), b(PREPARED), {Code.MACHINE_GONE}, ("host-a", "lost")),
    "died at home": (a(OWNER, "gone"), host("host-b"), {Code.MACHINE_GONE}, ("host-a", "lost")),
    "is frozen": (a(OWNER, run_state="-"), host("host-b"), {Code.MACHINE_SILENT}, ("host-a", "silent")),
    "is owed a run": (a(OWNER, run_state="paused"), host("host-b"), {Code.RUN_STATE_OWED}, ("host-a", "paused")),
    "may not leave again": (A, b(ACTIVE), {Code.FORMER_SOURCE_OPEN, Code.HOST_SILENT}, ("host-b", "running")),
    "left an image behind": (a(ABORTED), b(READY), {Code.ABANDONED_IMAGE}, ("host-a", "running")),
    "lost an image that waited": (A, b(READY, "gone"), {Code.ABANDONED_IMAGE, Code.HOST_SILENT}, (None, "unresolved")),
    "has lost a journal": (
        host("host-a"),
        b(READY),
        {Code.HANDOVER_WAITING, Code.JOURNAL_MISSING},
        (None, "unresolved"),
    ),
    "was given to a host that is silent": (a(retired(RELEASED), "gone"), B, {Code.HOST_SILENT}, (None, "unresolved")),
}


@pytest.mark.parametrize("case", SETTLED_SITES)
def test_nothing_is_found_where_nothing_is_wrong(case: str) -> None:
    first, second, where = SETTLED_SITES[case]
    found = diagnosis(site(first, second))
    assert found.findings == ()
    assert [(place.owner, place.state) for _, place in found.machines] == [where]


@pytest.mark.parametrize("case", UNSETTLED_SITES)
def test_what_is_wrong_is_found_and_the_machine_is_where_it_is(case: str) -> None:
    first, second, codes, where = UNSETTLED_SITES[case]
    found = diagnosis(site(first, second))
    assert {one.code for one in found.findings} == codes
    assert [(place.owner, place.state) for _, place in found.machines] == [where]
    for one in found.findings:
        assert (one.severity == "notice") == (one.code is Code.ATTEMPT_OPEN)
        assert one.hint


@pytest.mark.parametrize("case", UNSETTLED_SITES)
def test_a_finding_is_the_same_from_whichever_host_it_is_seen_first(case: str) -> None:
    first, second, codes, where = UNSETTLED_SITES[case]
    found = diagnosis(site(second, first))
    assert {one.code for one in found.findings} == codes
    assert [(place.owner, place.state) for _, place in found.machines] == [where]


def test_a_machine_that_was_destroyed_is_not_listed() -> None:
    found = diagnosis(site(a(destroyed(OWNER), "unknown"), host("host-b")))
    assert (found.machines, found.findings) == ((), ())


def test_a_run_past_the_handover_is_told_also_when_it_was_ended() -> None:
    (custody,) = a(RELEASED).copies.values()
    ran = HostView("host-a", ANSWERS, ANSWERS, {MACHINE: replace(custody, strayed=2)})
    found = {one.code: one for one in diagnosis(site(ran, b(READY))).findings}
    assert found.keys() == {Code.HANDOVER_WAITING, Code.STRAY_RUN}
    assert "ran 2 times, and was stopped again" in found[Code.STRAY_RUN].message


def test_a_stop_whose_agent_is_silent_is_a_problem() -> None:
    standing = HostView("host-a", SILENT, ANSWERS, a(STOPPED).copies)
    codes = {one.code: one.severity for one in diagnosis(site(standing, b(PREPARED))).findings}
    assert codes == {Code.HANDOVER_WAITING: "problem", Code.HOST_SILENT: "problem"}


def test_an_unreadable_journal_is_named_and_nothing_is_concluded_from_it() -> None:
    broken = HostView(
        "host-a", ANSWERS, ANSWERS, {MACHINE: copy_from("host-a", Held(None, unreadable="torn").custody(MACHINE))}
    )
    found = diagnosis(site(broken, host("host-b")))
    assert [one.code for one in found.findings] == [Code.JOURNAL_UNREADABLE]
    assert "torn" in found.findings[0].message
    assert [(place.owner, place.state) for _, place in found.machines] == [(None, "unresolved")]


def test_a_record_of_another_version_is_not_guessed_at() -> None:
    custody = types_pb2.MachineCustody(machine=MACHINE, record='{"machine": "m", "novelty": 1}', process="alive")
    assert copy_from("host-a", custody).record is None
    assert "version" in copy_from("host-a", custody).unreadable


def test_what_is_left_over_is_found_with_its_process() -> None:
    left = (Leftover(MACHINE, "folder", 0, "/run/x"), Leftover(MACHINE, "vmm", 42, "/run/x"))
    found = diagnosis(site(HostView("host-a", ANSWERS, ANSWERS, {}, left)))
    assert [one.code for one in found.findings] == [Code.LEFTOVER_FOLDER, Code.LEFTOVER_PROCESS]
    assert "42" in found.findings[1].message


@pytest.mark.parametrize(("version", "severity"), [("0.3.0", "notice"), ("7.0.0", "problem")])
def test_other_versions_are_named(version: str, severity: str) -> None:
    other = HostView("host-a", Told(version=version), ANSWERS)
    found = diagnosis(site(other)).findings
    assert [(one.code, one.severity) for one in found] == [(Code.VERSION, severity)]


def test_an_agent_that_does_not_know_the_call_is_of_another_version_and_not_off() -> None:
    old = Told(Refused("not-offered", "It does not offer this call", ""))
    view = HostView("host-a", old, old)
    assert view.is_up
    assert not view.answers
    assert [one.code for one in diagnosis(site(view)).findings] == [Code.VERSION]
    beside = {one.code: one for one in diagnosis(site(view, b(PREPARED))).findings}
    assert beside.keys() == {Code.VERSION, Code.ATTEMPT_OPEN}
    notice = beside[Code.ATTEMPT_OPEN]
    assert "does not answer" not in notice.message  # it did, and its agents need no start
    assert "Start" not in notice.hint


def test_a_complaint_is_told_where_nothing_else_explains_it() -> None:
    complains = a(OWNER, complaint="refuses to begin: journal-rolled-back")
    (finding,) = diagnosis(site(complains, host("host-b"))).findings
    assert (finding.code, finding.severity) == (Code.AGENT_COMPLAINS, "problem")
    assert "journal-rolled-back" in finding.message


def test_a_contradiction_that_only_an_agent_sees_is_one() -> None:
    complains = a(replaced(OWNER, was_running=False), complaint="contradiction: host-b says ACTIVE", run_state="paused")
    found = diagnosis(site(complains, host("host-b")))
    assert [one.code for one in found.findings] == [Code.CONTRADICTION]
    assert [place.state for _, place in found.machines] == ["contradiction"]


def test_only_what_both_looks_find_is_told() -> None:
    passing = diagnosis(site(a(RELEASED), b(READY)))
    assert passing.problems == 1
    settled = agreed(passing, site(a(retired(RELEASED), "gone"), b(SETTLED)))
    assert (settled.problems, settled.machines[0][1].state) == (0, "running")
    began = agreed(diagnosis(site(a(STOPPED), b(READY))), site(a(RELEASED), b(READY)))
    assert (began.problems, began.machines[0][1].state) == (0, "moving")
    stayed = agreed(passing, site(a(RELEASED), b(READY)))
    assert stayed.problems == 1


def test_the_newer_record_of_a_host_s_two_agents_counts_and_both_complaints() -> None:
    older = copy_from("host-a", Held(replaced(BEGUN, sequence=3), complaint="one").custody(MACHINE))
    newer = copy_from("host-a", Held(replaced(STOPPED, sequence=4), complaint="two").custody(MACHINE))
    for first, second in ((older, newer), (newer, older)):
        copy = merged({MACHINE: first}, {MACHINE: second})[MACHINE]
        assert copy.record == newer.record
        assert set(copy.complaint.split("; ")) == {"one", "two"}


def test_no_view_holds_a_secret() -> None:
    assert BEGUN.secret
    assert BEGUN.secret not in repr(site(a(BEGUN), b(PREPARED)))
