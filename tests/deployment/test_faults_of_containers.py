"""What becomes of a machine on its way when a container, a network or a daemon is taken away, and comes back."""

import pytest

from tests.deployment.deployment import Deployment, cut_off, ended, paused
from tests.deployment.doctor import findings
from tests.deployment.machine import PATIENTLY, Machine, migrated
from tests.deployment.majority import lost_majority

REFUSED, FAILED, CANCELLED, LOST, DONE = 3, 4, 5, 7, 0
WHOLE = "16384 pages, 0 differ"


def moves_after_all(site: Deployment, machine: Machine) -> None:
    """Check that what has come back can be moved to again."""
    again = site.viaduct("migrate", machine.name, "--to", "host-b", "--json", *PATIENTLY)
    assert again.exit_code == DONE, again.err
    assert migrated(again).pages_mismatched == 0
    machine.runs_at("host-b")


async def test_a_destination_that_is_killed_leaves_the_machine_where_it_was(site: Deployment, machine: Machine) -> None:
    async with machine.moving_to("host-b") as command:
        site.act("kill", "host-b")
        told = await ended(command)
    assert told.exit_code == FAILED, told.out
    assert "host-b" in told.out
    machine.runs_at("host-a")
    site.start("host-b")
    moves_after_all(site, machine)


@pytest.mark.parametrize("silenced", ["paused", "control", "migration"])
async def test_a_machine_whose_destination_is_silent_or_cut_off_can_be_called_back(
    site: Deployment, machine: Machine, silenced: str
) -> None:
    async with machine.moving_to("host-b") as command:
        with paused(site, "host-b") if silenced == "paused" else cut_off(site, "host-b", silenced):
            site.cancel()
            told = await ended(command)
    assert told.exit_code in {FAILED, CANCELLED}, told.out  # it may have noticed by itself
    machine.runs_at("host-a")
    moves_after_all(site, machine)


async def test_a_source_that_dies_takes_its_machine_with_it_and_nobody_runs_what_had_been_sent(
    site: Deployment, whole: None
) -> None:
    del whole
    mortal = Machine.create(site, "mortal")
    async with mortal.moving_to("host-b") as command:
        site.act("kill", "host-a")
        site.start("host-a")
        told = await ended(command)
    assert told.exit_code == LOST, told.out
    assert "Create it anew" in told.out
    site.processes_are({})
    Machine.create(site, mortal.name).destroy()


async def test_without_a_majority_of_etcd_nothing_new_starts_and_what_runs_goes_on(
    site: Deployment, machine: Machine
) -> None:
    waits = Machine.create(site, "waits")
    async with machine.moving_to("host-b") as command:
        with lost_majority(site) as majority:
            refused = site.viaduct("migrate", waits.name, "--to", "host-b")
            assert refused.exit_code == REFUSED, refused.out
            assert "majority" in refused.err
            assert "store-unusable" in {one.code for one in findings(site)}
            site.processes_are({"host-a": [waits.uuid], "host-b": [machine.uuid]})
            majority.regain()
            told = await ended(command)
            assert told.exit_code == DONE, told.out
            assert WHOLE in told.out
            waits.works_at("host-a")
            waits.destroy()
            machine.runs_at("host-b")


async def test_a_broker_that_is_started_again_is_told_how_it_ended(site: Deployment, machine: Machine) -> None:
    async with machine.moving_to("host-b") as command:
        site.act("restart", "broker")
        told = await ended(command)
    assert told.exit_code == DONE, told.out
    assert WHOLE in told.out
    machine.runs_at("host-b")


@pytest.mark.parametrize(("away", "back"), [("pause", "unpause"), ("kill", "start")])
async def test_the_other_orchestrator_goes_on_with_what_one_that_stops_has_begun(
    site: Deployment, machine: Machine, away: str, back: str
) -> None:
    async with machine.moving_to("host-b", "--max-bandwidth", "40Mbit/s") as command:  # asked who leads meanwhile
        leader = site.leader()
        site.act(away, leader)
        try:
            told = await ended(command)
            assert told.exit_code == DONE, told.out
            assert site.leader() != leader
        finally:
            site.act(back, leader)
    assert WHOLE in told.out
    machine.runs_at("host-b")


async def test_a_stopped_leader_that_goes_on_harms_nothing(site: Deployment, machine: Machine) -> None:
    async with machine.moving_to("host-b") as command:
        with paused(site, site.leader()):
            pass
        told = await ended(command)
    assert told.exit_code == DONE, told.out
    assert WHOLE in told.out
    machine.runs_at("host-b")


async def test_an_agent_that_is_killed_costs_the_attempt_and_not_the_machine(
    site: Deployment, machine: Machine
) -> None:
    async with machine.moving_to("host-b") as command:
        site.inside("host-a", "s6-svc", "-k", "/run/viaduct/services/source-agent")
        told = await ended(command)
    assert told.exit_code == FAILED, told.out
    machine.runs_at("host-a")
    moves_after_all(site, machine)
