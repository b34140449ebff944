"""Machines that leave a host together, and how far they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, in_the_middle, machine, specification
from tests.system.command import Ended, running
from tests.system.site import Site

NAMES = ("first", "second", "third")
ENDLESS = (
    *("--downtime-limit", "100ms", "--max-bandwidth", "1MiB/s", "--compression", "none"),
    *("--profile", "gentle", "--measure", "0s"),
)
"""The guests write more than twice as much, and nobody throttles them: a loaded test machine takes half of that."""


@contextlib.asynccontextmanager
async def three(site: Site, agents: Agents) -> AsyncIterator[list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in NAMES:
            wanted = specification(name, guest_cpu_dirty_rate="2MiB/s", dma_rate="512KiB/s")
            made.append((await stack.enter_async_context(machine(site, agents, wanted))).machine)
        yield made


def machines(said: Ended) -> list[dict[str, object]]:
    found = said.document["machines"]
    assert isinstance(found, list)
    return found


async def in_order(agents: Agents, made: Sequence[str]) -> list[str]:
    """Return the machines, the two first that are in their rounds: which of three is made ready first, nobody says."""
    looks = {uuid: asyncio.create_task(in_the_middle(agents, "host-a", uuid)) for uuid in made}
    try:
        while len(going := [uuid for uuid, look in looks.items() if look.done()]) < 2:
            waiting = [look for look in looks.values() if not look.done()]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for uuid in going:
            looks[uuid].result()
    finally:
        for look in looks.values():
            look.cancel()
        await asyncio.gather(*looks.values(), return_exceptions=True)
    return [*going, *(uuid for uuid in made if uuid not in going)]


async def patiently(site: Site, *arguments: str, config: Path) -> Ended:
    """Run a command to its end that takes as long as several migrations."""
    async with running(site, *arguments, config=config) as process:
        async with asyncio.timeout(3 * DEADLINE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())
