"""What an update leaves behind where it does not come to its own end: nothing open, and no file."""

import asyncio

from tests.source_agent.updating.life import Life
from tests.source_agent.updating.lives import (
    PATIENCE,
    a_host,
    agent_of,
    last,
    life_that_ends,
    living,
    next_life,
    settled,
    steps_of_an_update,
    updated,
)
from tests.source_agent.updating.twin import TwinHost
from vm_migration.handover.states import State


async def test_an_agent_that_has_no_say_any_more_lets_go_of_the_new_process() -> None:
    steps = await steps_of_an_update()
    for at in range(steps.index("offer") + 1, len(steps)):
        host, life = a_host(), Life(at, freezes=True)
        agent = agent_of(host, life)
        await agent.recover()
        work, over = asyncio.create_task(updated(agent)), asyncio.create_task(life.ended.wait())
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        await next_life(host)
        async with living(host, Life()) as another:
            await updated(another)
        driving = list(agent._attempts._driving.values())
        life.thaw.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*driving)
        work.cancel()
        over.cancel()
        await agent.stop()
        assert not host.open_ports, (at, steps[at - 1])
        host.agent_gone()
        await settled(host)


async def test_the_file_of_a_machine_that_was_lost_before_it_was_left_goes_also_in_a_later_life() -> None:
    steps = await steps_of_an_update("reboot")
    left = steps.index("leave") + 1
    seen = Life()
    host = a_host()
    await life_that_ends(host, Life(left, after=True), "reboot")
    host.restart()
    async with living(host, seen):
        pass
    assert last(host).state is State.LOST
    assert not _waits(host)
    for after in (False, True):
        host = a_host()
        await life_that_ends(host, Life(left, after=True), "reboot")
        host.restart()
        later = Life(seen.steps.index("write LOST") + 1, after=after)
        await life_that_ends(host, later, "reboot")
        assert _waits(host)
        assert (await next_life(host)).state is State.LOST
        assert not _waits(host)


def _waits(host: TwinHost) -> bool:
    return host.waits is not None
