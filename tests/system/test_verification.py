"""Verification stands on something else than the dirty map: it finds the write that the map missed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from orchestrator.agents import Agents
from source_agent.agent import SourceAgent
from source_agent.progress import Outcome
from tests.system.attempts import DEADLINE, jobs_done, specification, works
from tests.system.forgetful import (
    ForgetfulMachine,
    UnwitnessedMachine,
    WatchedMachine,
    ended_attempt,
    own_agent,
    prepared,
)
from tests.system.processes import ended
from tests.system.site import OWN_HOST, Site


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[SourceAgent]:
    """A source agent in this process, so that its view of a machine can be made to miss a write."""
    async with own_agent(site) as agent:
        yield agent


@asynccontextmanager
async def created(agent: SourceAgent, agents: Agents, name: str) -> AsyncIterator[str]:
    holding = await agent.machines.create(specification(name))
    machine = holding.record.machine
    try:
        yield machine
    finally:
        if any(each.record.machine == machine for each in await agent.holdings.all()):
            await agent.machines.destroy(machine)
        else:
            await agents.act_on_machine("host-b", machine, "destroy")


async def test_what_arrives_is_what_was_there_as_an_independent_reader_sees_it(
    site: Site, agents: Agents, agent: SourceAgent
) -> None:
    async with created(agent, agents, "faithful") as machine:
        await works(site, OWN_HOST, machine)
        attempt, port, order = await prepared(site, agent, machine, WatchedMachine, "auto")
        progress = (await ended_attempt(attempt, order)).board.progress
        assert (progress.outcome, progress.pages_mismatched) == (Outcome.COMPLETED, 0)
        assert port.differing == []


@pytest.mark.parametrize(
    ("kind", "verified_by"),
    [(ForgetfulMachine, "witness"), (UnwitnessedMachine, "full")],
    ids=["by the witness", "in full without a witness"],
)
async def test_a_write_that_the_dirty_map_missed_is_caught(
    site: Site, agents: Agents, agent: SourceAgent, kind: type[ForgetfulMachine], verified_by: str
) -> None:
    async with created(agent, agents, "caught") as machine:
        await works(site, OWN_HOST, machine)
        attempt, port, order = await prepared(site, agent, machine, kind, "auto")
        assert isinstance(port, ForgetfulMachine)
        arriving = site.instance("host-b", machine)
        progress = (await ended_attempt(attempt, order)).board.progress
        assert progress.outcome is Outcome.FAILED
        assert progress.failure is not None
        assert progress.failure.code == "pages-mismatched"
        assert (progress.pages_mismatched, progress.mismatched) == (1, (port.missed,))
        assert str(port.missed) in progress.failure.message
        assert progress.verified_by == verified_by
        assert site.states(OWN_HOST, machine) == ["OWNER", "OUTGOING", "STOPPED", "ABORTED"]
        await works(site, OWN_HOST, machine, await jobs_done(site, OWN_HOST, machine))
        # The destination never ran, and is told to forget it.
        assert ended(arriving.vmm.pid, DEADLINE)
        assert "ACTIVATING" not in site.states("host-b", machine)


async def test_without_verification_the_same_loss_goes_through(site: Site, agents: Agents, agent: SourceAgent) -> None:
    async with created(agent, agents, "deceived") as machine:
        await works(site, OWN_HOST, machine)
        attempt, port, order = await prepared(site, agent, machine, ForgetfulMachine, "none")
        assert isinstance(port, ForgetfulMachine)
        progress = (await ended_attempt(attempt, order)).board.progress
        assert (progress.outcome, progress.pages_mismatched, progress.pages_verified) == (Outcome.COMPLETED, 0, 0)
        assert progress.verified_by == "none"
        assert port.differing == [port.missed]
