"""What the tests of real QEMU share: programs of two versions, a guest, and certificates of hosts."""

import pytest

from tests.system.qemu_fixtures import guest, programs
from tests.vm_migration.machine.qemu.direct_pairs import HOSTS
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles

__all__ = ["guest", "programs"]


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TlsFiles]:
    """Certificates of one site's hosts, by name."""
    pki = tmp_path_factory.mktemp("pki")
    create_authority(pki, "test")
    return {name: issue(pki, Identity("test", Role.HOST, name)) for name in HOSTS}
