"""The version before, unpacked once, and a site on which both versions meet."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.versions.mixed_site import HOSTS, MixedSite
from tests.versions.programs import Version
from tests.versions.programs import older as unpack


@pytest.fixture(scope="session")
def older() -> Iterator[Version]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        yield unpack(Path(folder))


@pytest.fixture(scope="session")
def shared_mixed_site() -> Iterator[MixedSite]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = MixedSite(Path(folder), dict.fromkeys(HOSTS, "256MiB"))
        with contextlib.closing(site):
            yield site


@pytest.fixture
def mixed_site(shared_mixed_site: MixedSite) -> Iterator[MixedSite]:
    """The site, of which every test leaves the hosts as it found them: empty."""
    yield shared_mixed_site
    left = shared_mixed_site.remains_at_last()
    if left:
        shared_mixed_site.close()
    assert left == []


@pytest.fixture
async def agents(mixed_site: MixedSite) -> AsyncIterator[Agents]:
    async with mixed_site.agents() as agents:
        yield agents
