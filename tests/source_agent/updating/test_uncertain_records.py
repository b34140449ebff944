"""Nobody knows whether a record stands, or a cancel comes while it is written, and the old process ends at that moment.

What has the machine then, the new process or its files, goes on with it: what was written becomes known first.
"""

import errno
from contextlib import suppress

import pytest

from tests.source_agent.updating.life import Life
from tests.source_agent.updating.lives import a_host, living, running, settled, steps_of_an_update, updated
from vm_migration.errors import Refused
from vm_migration.handover.succession import went_over

STEPS_OF_A_RECORD = 3
"""Space is reserved, it is written, it is flushed."""


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("fails", range(STEPS_OF_A_RECORD + 1))
@pytest.mark.parametrize("written", ["STOPPED", "RELEASED"])
@pytest.mark.parametrize("mode", ["transfer", "reboot"])
async def test_a_record_of_which_nobody_knows_is_not_overwritten(
    mode: str, written: str, fails: int, cancelled: bool
) -> None:
    host, life = a_host(), Life((await steps_of_an_update(mode)).index(f"write {written}") + 1)
    async with living(host, life) as agent:

        def cancel() -> None:
            for each in agent._attempts:
                with suppress(Refused):
                    each.cancel()

        def happens() -> None:
            host.old.end()
            if fails:
                host.disk.failures[host.disk.steps + fails] = errno.EIO
            if cancelled:
                life.loop.call_soon_threadsafe(cancel)

        life.happens = happens
        attempt = await updated(agent, mode)
        assert went_over(attempt.record), (life.steps, attempt.board.progress)
        assert running(host) == [host.new]
    host.agent_gone()
    await settled(host)
    assert running(host) == [host.new]
