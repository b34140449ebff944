"""One engine and one site for all tests: an image takes a minute, a site ten seconds. And one machine for most."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.deployment import Deployment
from tests.deployment.engine import some_engine
from tests.deployment.kept import Kept
from tests.deployment.machine import Machine
from tests.deployment.making import deployed


def pytest_configure() -> None:
    """Have a run that is told to stop clean up behind itself, as one that a person interrupts does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def site() -> Iterator[Deployment]:
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-deploy-") as folder,
        some_engine() as engine,
        deployed(engine, Path(folder)) as site,
    ):
        yield site


@pytest.fixture(scope="session")
def kept(site: Deployment) -> Iterator[Kept]:
    machines = Kept(site)
    yield machines
    machines.end_all()


@pytest.fixture
def whole(site: Deployment) -> None:
    """Every container is as it is shipped."""
    site.whole()


@pytest.fixture
def machine(request: pytest.FixtureRequest, kept: Kept) -> Iterator[Machine]:
    """A busy machine, on host-a or host-b; no other is there before and after."""
    before = request.session.testsfailed
    yield kept.machine()
    kept.check(failed=request.session.testsfailed > before)
