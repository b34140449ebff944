"""A site whose daemons are of several versions, and `viaduct` as a person with one of them runs it."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.attempts import works
from tests.system.command import Ended, finished
from tests.system.daemons import STOP_SECONDS, Daemon, environment, launch
from tests.system.site import SIDES, Site
from tests.versions.programs import NEWER, Version
from vm_migration.loopback.ports import free_ports

HOSTS = ("host-a", "host-b")
ORCHESTRATOR = ("orchestrator", "daemon")
DRIVES = "operator"
"""The configuration of a person whose commands drive attempts themselves."""
ASKS = "client"
"""The configuration of a person whose commands ask the daemon."""


@dataclass
class MixedSite(Site):
    """Two hosts and an orchestrator; each daemon runs as the version that it was last told to be."""

    versions: dict[tuple[str, str], Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        (port,) = free_ports(1)
        name = ORCHESTRATOR[0]
        for who, identity in ((name, name), (ASKS, DRIVES)):
            address = f'[site]\norchestrator = "127.0.0.1:{port}"\n'
            self.configuration(who).write_text(self._text(identity).replace("[site]\n", address, 1))
        self.daemons[ORCHESTRATOR] = Daemon(name, [], self.folder)

    @property
    def orchestrator(self) -> Daemon:
        return self.daemons[ORCHESTRATOR]

    def become(self, version: Version, *daemons: tuple[str, str]) -> None:
        """Have these daemons run as a version; one that runs as another is stopped first."""
        for place in daemons:
            if self.versions.get(place) != version:
                self.daemons[place].stop()
                self.versions[place] = version
                self.daemons[place].command = self._command(version, *place)
        launch([self.daemons[place] for place in daemons if not self.daemons[place].running])

    def a_is_older(self, older: Version) -> None:
        """Have host-a run as an older version, and host-b as this one: where most tests begin, and many end."""
        self.host_becomes(older, "host-a")
        self.host_becomes(NEWER, "host-b")

    def host_becomes(self, version: Version, *hosts: str) -> None:
        """Have both agents of these hosts run as a version."""
        self.become(version, *((host, side) for host in hosts for side in SIDES))

    @property
    def store(self) -> Path:
        return self.folder / "orchestrator.db"

    def age_claims(self) -> None:
        """Age every claim of an attempt as if its driver were gone for so long that any other may take it over."""
        with closing(sqlite3.connect(self.store)) as store, store:
            store.execute("UPDATE attempt SET heartbeat = heartbeat - 60")

    def _command(self, version: Version, host: str, side: str) -> list[str]:
        if (host, side) == ORCHESTRATOR:
            return version.command("viaduct", "orchestrator", "--config", str(self.configuration(host)))
        return version.command(f"viaduct-{side}-agent", "--config", str(self.configuration(host)))


@asynccontextmanager
async def running(
    site: Site, version: Version, *arguments: str, who: str = DRIVES
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command of a version beside the test; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *version.command("viaduct", *arguments, "--config", str(site.configuration(who))),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def viaduct(site: Site, version: Version, *arguments: str, who: str = DRIVES) -> Ended:
    """Run a command of a version to its end."""
    async with running(site, version, *arguments, who=who) as process:
        return await finished(process)


async def require_moved(site: Site, version: Version, machine: str, to: str, *, who: str = DRIVES) -> int:
    """Move a machine by a command of a version, every page of it right; return the guest's jobs by then."""
    moved = await viaduct(site, version, "migrate", machine, "--to", to, "--downtime-limit", "2s", "--json", who=who)
    assert moved.exit_code == 0, moved.err
    document = moved.document
    assert (document["outcome"], document["pages_mismatched"]) == ("completed", 0)
    guest = document["guest"]
    assert isinstance(guest, dict)
    assert guest["errors"] == 0
    return int(guest["jobs_done"])


async def require_alone(site: Site, machine: str, host: str, jobs: int = 0) -> int:
    """Check that a machine works on at one host, past some jobs and without an error, and is nowhere else."""
    done = await works(site, host, machine, jobs)
    until = time.monotonic() + STOP_SECONDS
    while (places := [each for each in site.budgets if machine in site.machines_at(each)]) != [host]:
        assert time.monotonic() < until, places
        await asyncio.sleep(0.02)  # a retired copy is freed beside the answer
    return done
