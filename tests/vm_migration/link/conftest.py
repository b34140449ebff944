"""A site with its certificate authority."""

from pathlib import Path

import pytest

from tests.vm_migration.link.answering_agent import Site
from vm_migration.link.pki import create_authority


@pytest.fixture
def site(tmp_path: Path) -> Site:
    create_authority(tmp_path / "pki", "home")
    return Site(tmp_path / "pki")
