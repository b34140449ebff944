"""The process of the simulated hosts: `python -m benchmarks.scale.serving DESCRIPTION HAPPENED`.

Every agent is a server of its own, at its own address and with its host's certificate, as the real ones are; but one
process answers for all of them. What happens is appended to the file HAPPENED, a line each.
"""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.scale.agents import dest_services, source_services
from benchmarks.scale.fleet import Fleet, FleetDescription, Happened
from vm_migration.daemon.life import Life, run
from vm_migration.link.server import AgentServer
from vm_migration.link.tls import TlsFiles

_COLLECTED_AFTER: Final = 2_000
"""As the orchestrator's (orchestrator.daemon): of real hosts each has its own interpreter, and few objects."""


@contextlib.asynccontextmanager
async def served(description: FleetDescription, note: Callable[[Happened], None]) -> AsyncIterator[Fleet]:
    """Serve every host while the context is entered."""
    fleet, pki = Fleet(description, note), Path(description.pki)
    async with contextlib.AsyncExitStack() as stack:
        for host, place in description.hosts.items():
            tls = TlsFiles(pki / "ca.pem", pki / f"{host}.pem", pki / f"{host}.key")
            sides = ((place.source, source_services(fleet, host)), (place.dest, dest_services(fleet, host)))
            for address, services in sides:
                await stack.enter_async_context(AgentServer(address, tls, services, grace=0.0))
        try:
            yield fleet
        finally:
            tasks = [one.task for one in fleet.attempts.values() if one.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(description: FleetDescription, happened: Path, life: Life) -> None:
    with happened.open("a", buffering=1) as lines:
        async with served(description, lambda one: print(one.at, one.attempt, one.what, file=lines)):
            gc.freeze()  # two thousand servers: to look at all of them again and again stops them for a second
            gc.set_threshold(_COLLECTED_AFTER, 10, 50)
            life.ready(hosts=len(description.hosts))
            await life.stopped()


def main() -> int:
    """Serve until asked to stop."""
    description = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=FleetDescription)
    happened = Path(sys.argv[2])
    return run("simulated-hosts", lambda life: _serve(description, happened, life), stop_deadline=60.0)


if __name__ == "__main__":
    sys.exit(main())
