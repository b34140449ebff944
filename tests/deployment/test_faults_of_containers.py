"""What becomes of a machine on its way when a container, a network or a daemon is taken away, and comes back."""

import pytest

from tests.deployment.deployment import Deployment, ended
from tests.deployment.machine import PATIENTLY, Machine, migrated

FAILED, CANCELLED, DONE = 4, 5, 0
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
    site.up("host-b")
    moves_after_all(site, machine)


async def test_a_destination_that_is_paused_leaves_the_machine_where_it_was(site: Deployment, machine: Machine) -> None:
    async with machine.moving_to("host-b", "--timeout", "20s") as command:
        site.act("pause", "host-b")
        try:
            told = await ended(command)
        finally:
            site.act("unpause", "host-b")
    assert told.exit_code == FAILED, told.out
    machine.runs_at("host-a")
    moves_after_all(site, machine)


@pytest.mark.parametrize("network", ["control", "migration"])
async def test_a_machine_whose_destination_is_cut_off_can_be_called_back(
    site: Deployment, machine: Machine, network: str
) -> None:
    async with machine.moving_to("host-b") as command:
        site.disconnect("host-b", network)
        try:
            site.cancel()
            told = await ended(command)
        finally:
            site.connect("host-b", network)
    assert told.exit_code in {FAILED, CANCELLED}, told.out  # it may have noticed by itself
    machine.runs_at("host-a")
    moves_after_all(site, machine)


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
    async with machine.moving_to("host-b") as command:
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
        leader = site.leader()
        site.act("pause", leader)
        site.act("unpause", leader)
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
