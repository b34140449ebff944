"""A machine that is arriving."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dest_agent.arrivals import arriving
from tests.fakes.fake_machine import Held
from vm_migration.handover.states import State


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """Its journal says PREPARED."""
    with arriving(tmp_path, State.PREPARED) as machine:
        yield machine
