"""What the guest's corpus is made of; read once."""

import pytest

from vmm.guest.host_material import read_material
from vmm.guest.material import Material


@pytest.fixture(scope="session")
def material() -> Material:
    return read_material()
