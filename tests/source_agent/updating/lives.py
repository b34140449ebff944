"""Lives of an agent that updates the machine of a twin host, and what the next life makes of what one left."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from source_agent.agent import SourceAgent
from source_agent.surroundings import Surroundings
from source_agent.terms import update_terms
from source_agent.updating.attempt import UpdateAttempt
from tests.fakes.fake_machine import MACHINE
from tests.source_agent.journeys import no_hook
from tests.source_agent.updating.life import Life, SteppingJournals, let_all_end
from tests.source_agent.updating.twin import (
    BOOT,
    SPECIFICATION,
    TwinHost,
    TwinProcess,
    as_hypervisor,
)
from tests.source_agent.updating.twin_succession import TwinSuccession
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import create
from vm_migration.handover.record import AttemptKey, Record
from vm_migration.handover.states import OWNING
from vm_migration.handover.succession import went_over

PATIENCE = 20.0


def a_host(*, running: bool = True) -> TwinHost:
    """A host with one machine, created and run by an agent that is gone."""
    host = TwinHost()
    process = host.started(incoming=False)
    host.listed = host.socket = process.instance.name
    first = create(MACHINE, instance=process.instance.name, was_running=running, specification=SPECIFICATION.decode())
    Journals(SteppingJournals(host.disk, Life()).folder, host.disk).create(first).close()
    process.running = running
    return host


def agent_of(host: TwinHost, life: Life) -> SourceAgent:
    return SourceAgent(
        host="host-a",
        journals=SteppingJournals(host.disk, life),
        hypervisor=as_hypervisor(host, life),
        succession=TwinSuccession(host, life),
        memory_budget=1 << 30,
        hash_bytes_per_s=1e9,
        surroundings=lambda _attempt, _machine, _epoch: Surroundings(None, no_hook, 1e9, BOOT),
    )


@asynccontextmanager
async def living(host: TwinHost, life: Life) -> AsyncIterator[SourceAgent]:
    agent = agent_of(host, life)
    await agent.recover()
    yield agent
    await agent.stop()


async def begun_update(agent: SourceAgent, mode: str = "transfer") -> UpdateAttempt:
    begun = await agent.begin(AttemptKey(MACHINE, str(uuid.uuid4()), 0, 1), "host-a", update_terms(mode))
    assert isinstance(begun, UpdateAttempt)
    return begun


async def updated(agent: SourceAgent, mode: str = "transfer") -> UpdateAttempt:
    begun = await begun_update(agent, mode)
    async with asyncio.timeout(PATIENCE):
        while begun.open:
            await begun.board.next(1.0)
    return begun


async def life_that_ends(
    host: TwinHost, life: Life, mode: str = "transfer", *, agent: SourceAgent | None = None
) -> None:
    """Update until the agent is killed, or the update is over; then the agent is gone either way."""
    agent = agent_of(host, life) if agent is None else agent

    async def live() -> None:
        await agent.recover()
        await updated(agent, mode)

    work, over = asyncio.create_task(live()), asyncio.create_task(life.ended.wait())
    await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
    await let_all_end()
    await asyncio.gather(work, over, return_exceptions=True)
    life.over = True
    host.agent_gone()


def last(host: TwinHost) -> Record:
    return Journals(SteppingJournals(host.disk, Life()).folder, host.disk).read_last(MACHINE)


def running(host: TwinHost) -> list[TwinProcess]:
    return [each for each in host.processes.values() if each.running]


async def next_life(host: TwinHost) -> Record:
    """Let another life of the agent go on, and return what the journal says after it."""
    async with living(host, Life()) as agent:
        async with asyncio.timeout(PATIENCE):
            for each in agent._attempts:
                while each.open:
                    await each.board.next(1.0)
    return last(host)


async def settled(host: TwinHost) -> Record:
    record = await next_life(host)
    assert not host.violations
    assert record.state in OWNING, record
    assert record.run_confirmed, record
    (only,) = [each for each in host.processes.values() if each.alive]
    assert only.instance.name == record.instance == host.listed == host.socket
    return record


async def steps_of_an_update(mode: str = "transfer", **how: bool) -> list[str]:
    host, life = a_host(**how), Life()
    async with living(host, life) as agent:
        attempt = await updated(agent, mode)
        assert went_over(attempt.record)
        return life.steps
