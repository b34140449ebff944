"""What the tests of whole migrations share: two hosts, a third that few machines fit on, and real QEMUs."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.system.gates import Gate
from tests.system.qemu_fixtures import guest, programs
from tests.system.site import Site
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto

__all__ = ["guest", "programs"]

BUDGETS = {"host-a": "2GiB", "host-b": "2GiB", "host-c": "96MiB"}


@pytest.fixture(scope="session")
def shared_site() -> Iterator[Site]:
    # Not pytest's own folder: the path of a machine's socket has room for 107 letters.
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = Site(Path(folder), BUDGETS)
        with contextlib.closing(site):
            yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The site, of which every test leaves the hosts as it found them: empty."""
    shared_site.run("host-a", "host-b")
    yield shared_site
    left = shared_site.remains_at_last()
    if left:
        shared_site.close()
    assert left == []


@pytest.fixture
async def agents(site: Site) -> AsyncIterator[Agents]:
    async with site.agents() as agents:
        yield agents


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        yield Gate(Path(folder))
