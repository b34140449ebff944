"""One engine and one site for all tests: an image takes a minute, a site ten seconds."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.deployment import Deployment
from tests.deployment.engine import some_engine
from tests.deployment.machine import Machine
from tests.deployment.making import deployed


@pytest.fixture(scope="session")
def site() -> Iterator[Deployment]:
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-deploy-") as folder,
        some_engine() as engine,
        deployed(engine, Path(folder)) as site,
    ):
        yield site


_NUMBERS = itertools.count(1)


@pytest.fixture
def machine(site: Deployment) -> Iterator[Machine]:
    """A busy machine on host-a; all hosts are there and empty before and after."""
    created = Machine.create(site, f"guest-{next(_NUMBERS)}")
    yield created
    created.destroy()
    assert site.machine_processes() == {}
