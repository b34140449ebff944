"""Verification stands on something else than the dirty map: it finds the write that the map missed."""

import os
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
from tests.system.processes import ended, mapping_ram
from tests.system.site import Site


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[SourceAgent]:
    """Host-a's source agent, in this process, so that its view of a machine can be made to miss a write."""
    site.source("host-a").stop()
    async with own_agent(site) as agent:
        yield agent


@asynccontextmanager
async def created(agent: SourceAgent, agents: Agents, name: str) -> AsyncIterator[str]:
    holding = await agent.create(specification(name))
    machine = holding.record.machine
    try:
        yield machine
    finally:
        if any(each.record.machine == machine for each in await agent.holdings.all()):
            await agent.destroy(machine)
        else:
            await agents.act_on_machine("host-b", machine, "destroy")


async def test_what_arrives_is_what_was_there_as_an_independent_reader_sees_it(
    site: Site, agents: Agents, agent: SourceAgent
) -> None:
    async with created(agent, agents, "faithful") as machine:
        await works(site, "host-a", machine)
        attempt, port, order = await prepared(site, agent, machine, WatchedMachine, "auto")
        progress = (await ended_attempt(attempt, order)).board.progress
        assert (progress.outcome, progress.pages_mismatched) == (Outcome.COMPLETED, 0)
        assert port.differing == []


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(ForgetfulMachine, "auto"), (UnwitnessedMachine, "auto"), (ForgetfulMachine, "full")],
    ids=["by the witness", "in full without a witness", "in full on request"],
)
async def test_a_write_that_the_dirty_map_missed_is_caught(
    site: Site, agents: Agents, agent: SourceAgent, kind: type[ForgetfulMachine], mode: str
) -> None:
    async with created(agent, agents, "caught") as machine:
        await works(site, "host-a", machine)
        attempt, port, order = await prepared(site, agent, machine, kind, mode)
        assert isinstance(port, ForgetfulMachine)
        arriving = site.instance("host-b", machine)
        progress = (await ended_attempt(attempt, order)).board.progress
        assert progress.outcome is Outcome.FAILED
        assert progress.failure is not None
        assert progress.failure.code == "pages-mismatched"
        assert (progress.pages_mismatched, progress.mismatched) == (1, (port.missed,))
        assert str(port.missed) in progress.failure.message
        assert progress.verified_by == ("witness" if (kind, mode) == (ForgetfulMachine, "auto") else "full")
        assert site.states("host-a", machine) == ["OWNER", "OUTGOING", "STOPPED", "ABORTED"]
        await works(site, "host-a", machine, await jobs_done(site, "host-a", machine))
        # The destination never ran, and is told to forget it.
        assert ended(arriving.vmm.pid, DEADLINE)
        assert "ACTIVATING" not in site.states("host-b", machine)


async def test_without_verification_the_same_loss_goes_through(site: Site, agents: Agents, agent: SourceAgent) -> None:
    async with created(agent, agents, "deceived") as machine:
        await works(site, "host-a", machine)
        attempt, port, order = await prepared(site, agent, machine, ForgetfulMachine, "none")
        assert isinstance(port, ForgetfulMachine)
        progress = (await ended_attempt(attempt, order)).board.progress
        assert (progress.outcome, progress.pages_mismatched, progress.pages_verified) == (Outcome.COMPLETED, 0, 0)
        assert progress.verified_by == "none"
        assert port.differing == [port.missed]


async def test_an_attempt_that_is_over_holds_no_memory_of_the_machine(
    site: Site, agents: Agents, agent: SourceAgent
) -> None:
    async with created(agent, agents, "let-go") as machine:
        attempt, _, order = await prepared(site, agent, machine, WatchedMachine, "auto")
        attempt.start(order)
        while not attempt.board.progress.wire_bytes:
            await attempt.board.next(1.0)
        attempt.cancel()
        while attempt.open:
            await attempt.board.next(1.0)
        await agent.stop()
        assert not mapping_ram(os.getpid(), "let-go")
