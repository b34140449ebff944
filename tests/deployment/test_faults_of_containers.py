"""What becomes of a machine on its way when a container, a network or a daemon is taken away, and comes back."""

import pytest

from tests.deployment.calls import AUDIT_LOG, by_orchestrators, called, cancelled_in_term
from tests.deployment.deployment import Deployment, cut_off, driven_by, heard, killed, paused
from tests.deployment.doctor import findings
from tests.deployment.kept import Kept
from tests.deployment.machine import AT_ONCE, PAGES, Machine, migrated
from tests.deployment.majority import lost_majority

pytestmark = pytest.mark.usefixtures("whole")

REFUSED, FAILED, CANCELLED, LOST, DONE = 3, 4, 5, 7, 0
WHOLE = f"{PAGES} pages, 0 differ"


def moves_after_all(machine: Machine, there: str) -> None:
    """Check that what has come back can be moved to again."""
    again = machine.site.viaduct("migrate", machine.name, "--to", there, "--json", *AT_ONCE)
    assert again.exit_code == DONE, again.err
    assert migrated(again).pages_mismatched == 0
    machine.runs_at(there)


async def test_a_destination_that_is_killed_leaves_the_machine_where_it_was(site: Deployment, machine: Machine) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving:
        with killed(site, there):
            told = await moving.ended()
            assert told.exit_code == FAILED, told.out
            assert there in told.out
            machine.runs_at(here)
    moves_after_all(machine, there)


@pytest.mark.parametrize("silenced", ["paused", "control", "migration"])
async def test_a_machine_whose_destination_is_silent_or_cut_off_can_be_called_back(
    site: Deployment, machine: Machine, silenced: str
) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving:
        with paused(site, there) if silenced == "paused" else cut_off(site, there, silenced):
            site.cancel(moving.attempt)
            told = await moving.ended()
    assert told.exit_code in {FAILED, CANCELLED}, told.out  # it may have noticed by itself
    machine.runs_at(here)
    moves_after_all(machine, there)


async def test_a_source_that_dies_takes_its_machine_with_it_and_nobody_runs_what_had_been_sent(
    site: Deployment, machine: Machine, kept: Kept
) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving:
        with killed(site, here):
            pass  # it is back at once
        told = await moving.ended()
    assert told.exit_code == LOST, told.out
    assert "Create it anew" in told.out
    site.processes_are({})
    kept.make_anew()


async def test_without_a_majority_of_etcd_nothing_new_starts_and_what_runs_goes_on(
    site: Deployment, machine: Machine
) -> None:
    here, there = machine.way()
    waits = Machine.create(site, "waits", host=here)
    async with machine.moving_to(there, "40Mbit/s", "auto") as moving:  # it comes to its end by itself
        with lost_majority(site) as majority:
            refused = site.viaduct("migrate", waits.name, "--to", there)
            assert refused.exit_code == REFUSED, refused.out
            assert "majority" in refused.err
            assert "store-unusable" in {one.code for one in findings(site)}
            site.processes_are({here: [waits.uuid], there: [machine.uuid]})
            majority.regain()
            told = await moving.ended()
            assert told.exit_code == DONE, told.out
            assert WHOLE in told.out
            waits.works_at(here)
            waits.destroy()
            machine.runs_at(there)


async def test_a_broker_that_is_started_again_is_told_how_it_ended(site: Deployment, machine: Machine) -> None:
    _, there = machine.way()
    async with machine.moving_to(there) as moving:
        site.act("restart", "broker")
        moving.let_go()
        told = await moving.ended()
    assert told.exit_code == DONE, told.out
    assert WHOLE in told.out
    machine.runs_at(there)


@pytest.mark.parametrize(("away", "back"), [("pause", "unpause"), ("kill", "start")])
async def test_the_other_orchestrator_goes_on_with_what_one_that_stops_has_begun(
    site: Deployment, machine: Machine, away: str, back: str
) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving, site.lines_of(here, AUDIT_LOG) as calls:
        leader = site.leader()
        site.act(away, leader)
        try:
            await called(calls, moving.attempt, after_term=1)
            moving.let_go()
            told = await moving.ended()
            assert told.exit_code == DONE, told.out
            assert site.leader() != leader
        finally:
            site.act(back, leader)
    assert WHOLE in told.out
    machine.runs_at(there)


async def test_a_leader_that_stood_still_is_refused_by_its_term_and_nothing_is_done_twice(
    site: Deployment, machine: Machine
) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving, site.lines_of(here, AUDIT_LOG) as calls:
        begun = site.attempts()
        former, attempt = driven_by(begun[0]), begun[0]
        async with site.logged_next(former) as log:
            with paused(site, former):
                taken_over = await called(calls, attempt.attempt, after_term=1)
                assert site.leader() != former
            await heard(log, "leads no more")
        assert cancelled_in_term(site, former, attempt, here, 1) == "stale-term"
        moving.let_go()
        told = await moving.ended()
    assert told.exit_code == DONE, told.out
    assert WHOLE in told.out
    machine.runs_at(there)
    assert [one.attempt for one in site.attempts()] == [one.attempt for one in begun]
    heeded = [one for one in by_orchestrators(site, here, attempt.attempt) if one.outcome == "done"]
    assert [one.term for one in heeded] == sorted(one.term for one in heeded)
    assert heeded[-1].term == taken_over.term == 2
    assert [one.call for one in heeded].count("Source/Start") == 1


async def test_an_agent_that_is_killed_costs_the_attempt_and_not_the_machine(
    site: Deployment, machine: Machine
) -> None:
    here, there = machine.way()
    async with machine.moving_to(there) as moving:
        site.inside(here, "s6-svc", "-k", "/run/viaduct/services/source-agent")
        told = await moving.ended()
    assert told.exit_code == FAILED, told.out
    machine.runs_at(here)
    moves_after_all(machine, there)
