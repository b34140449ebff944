"""The processes of a machine end while its file lies there: it is started from it, whoever looks first (mode reboot).

What was decided before does not matter: an update that goes on, one that was given up, or a later life of the agent.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from source_agent.agent import SourceAgent
from source_agent.updating.attempt import UpdateAttempt
from tests.fakes.fake_machine import MACHINE
from tests.source_agent.updating.life import Killed, Life
from tests.source_agent.updating.lives import (
    PATIENCE,
    a_host,
    agent_of,
    last,
    life_that_ends,
    living,
    next_life,
    running,
    settled,
    steps_of_an_update,
)
from tests.source_agent.updating.twin import TwinHost
from vm_migration.errors import Refused
from vm_migration.handover.states import State

LEFT = "write STOPPED"
"""From here on it is journalled that the machine waits in files."""


@dataclass
class Ends:
    """All processes end, once; `waited` says whether the machine could be started from its files then."""

    host: TwinHost
    life: Life
    left: bool = False
    """It was journalled in an earlier life that it waits."""
    agent_too: bool = False
    happened: bool = False
    waited: bool = False

    def __call__(self) -> None:
        taken = self.life.steps if self.life.after else self.life.steps[:-1]
        self.happened, self.waited = True, self.host.waits is not None and (self.left or LEFT in taken)
        for process in self.host.processes.values():
            process.end()
        if self.agent_too:
            self.life.end()
            raise Killed


async def require_it_goes_on(ends: Ends, *, was_running: bool, at: object) -> None:
    """It goes on where it waited; where it did not, it may be lost with what it was in."""
    host = ends.host
    record = await next_life(host)
    assert not host.violations, (at, host.violations)
    assert len([each for each in host.processes.values() if each.alive]) <= 1, at
    if ends.waited or not ends.happened or running(host):
        await settled(host)
        assert len(running(host)) == was_running, (at, record)
    assert host.waits is None, (at, record)


@pytest.mark.parametrize("agent_too", [False, True])
@pytest.mark.parametrize("was_running", [True, False])
async def test_the_processes_may_end_at_every_step(was_running: bool, agent_too: bool) -> None:
    steps = await steps_of_an_update("reboot", running=was_running)
    for at in range(1, len(steps) + 1):
        for after in (False, True):
            host, life = a_host(running=was_running), Life(at, after)
            life.happens = ends = Ends(host, life, agent_too=agent_too)
            await life_that_ends(host, life, "reboot")
            await require_it_goes_on(ends, was_running=was_running, at=(at, after, life.steps))


async def given_up(host: TwinHost, life: Life, then: Callable[[], None] | None = None, at: int = 0) -> None:
    """Live through an update that is cancelled once the machine is left; something happens at a later step."""
    agent = agent_of(host, life)

    def cancels() -> None:
        life.loop.call_soon_threadsafe(lambda: _cancel_all(agent))
        life.at, life.happens = at, then

    life.at, life.happens = (await steps_of_an_update("reboot")).index(LEFT) + 1, cancels
    await life_that_ends(host, life, "reboot", agent=agent)


def _cancel_all(agent: SourceAgent) -> None:
    for each in agent._attempts:
        assert isinstance(each, UpdateAttempt)
        with suppress(Refused):
            each.cancel()


@pytest.mark.parametrize("agent_too", [False, True])
@pytest.mark.parametrize("was_running", [True, False])
async def test_a_machine_whose_update_was_given_up_goes_on(was_running: bool, agent_too: bool) -> None:
    host, life = a_host(running=was_running), Life()
    await given_up(host, life)
    assert (last(host).state, host.waits) == (State.ABORTED, None)
    steps = life.steps
    for at in range(steps.index(LEFT) + 2, len(steps) + 1):
        for after in (False, True):
            host, life = a_host(running=was_running), Life(after=after)
            ends = Ends(host, life, agent_too=agent_too)
            await given_up(host, life, ends, at)
            await require_it_goes_on(ends, was_running=was_running, at=(at, after, life.steps))


@pytest.mark.parametrize("was_running", [True, False])
async def test_a_later_life_goes_on_with_a_machine_whose_processes_end_while_it_looks(was_running: bool) -> None:
    """Also where it has the machine in its hands already."""
    steps = await steps_of_an_update("reboot", running=was_running)
    for written in (LEFT, "write RELEASED", "write RECLAIMED", "keep"):
        for at in range(1, 40):
            host, life = a_host(running=was_running), Life(steps.index(written) + 1, after=True)
            await life_that_ends(host, life, "reboot")
            later = Life(at)
            later.happens = ends = Ends(host, later, left=True)
            async with living(host, later) as agent:
                async with asyncio.timeout(PATIENCE):
                    for each in agent._attempts:
                        while each.open:
                            await each.board.next(1.0)
                await agent.recovered(MACHINE)
                assert last(host).state is State.LOST or last(host).run_confirmed, (written, at, later.steps)
            if not ends.happened:
                break
            await require_it_goes_on(ends, was_running=was_running, at=(written, at, later.steps))
