"""Fixtures of real QEMU, for the conftest of each folder that has such tests: two programs, and what they boot."""

import pytest

from tests.qemu_guest.build import Guest
from tests.system.qemu_machines import guest_that_counts, programs_of


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> dict[str, str]:
    """Paths of `debian`, which is 7.2, and `newer`, 10.0."""
    return programs_of(pytestconfig)


@pytest.fixture(scope="session")
def guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """What a QEMU boots that writes to its memory and counts."""
    return guest_that_counts(pytestconfig, tmp_path_factory)
