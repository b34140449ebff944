"""Memory travels through the migration network, whichever address the agents are commanded at."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import machine, policy, require_whole, specification, started, works
from tests.system.site import Site
from vm_migration.link.address import split_address

BULK = "127.0.0.2"
BUDGETS = {"host-a": "1GiB", "host-b": "1GiB"}


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    """A site whose hosts are at an address of their own in the migration network."""
    # Not pytest's own folder: the path of a machine's socket has room for 107 letters.
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-") as folder,
        contextlib.closing(Site(Path(folder), BUDGETS)) as site,
    ):
        for name in (*BUDGETS, "operator"):
            file = site.configuration(name)
            file.write_text(file.read_text().replace("dest =", f'bulk = "{BULK}"\ndest ='))
        yield site


@pytest.mark.parametrize("transport", ["grpc", "direct", "sealed"])
async def test_every_transport_goes_through_the_migration_network(site: Site, agents: Agents, transport: str) -> None:
    async with machine(site, agents, specification("crossing")) as created:
        await works(site, "host-a", created.machine)
        attempt = await started(agents, created.machine, "host-a", "host-b", policy(transport=transport))
        require_whole(await attempt.end())
        assert split_address(attempt.prepared.bulk_address)[0] == BULK
