"""Certificates for QEMU's TLS, from the same authority that a site of ours has, under the names that QEMU looks for."""

from pathlib import Path
from typing import Final, Literal

from benchmarks.beside.link import HOSTS
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue

CREDENTIALS: Final = "tls0"
_SITE: Final = "bench"
_HOST: Final = {"client": HOSTS[0], "server": HOSTS[1]}


def credentials(folder: Path, endpoint: Literal["client", "server"]) -> str:
    """Return the `-object` of one side, which asks the other for a certificate; it is made on first use."""
    place = folder / f"tls-{endpoint}"
    if not place.is_dir():
        authority = folder / "pki"
        if not (authority / "ca.pem").exists():
            create_authority(authority, _SITE)
        host = _HOST[endpoint]
        files = issue(authority, Identity(_SITE, Role.HOST, host), (host,))
        place.mkdir()
        (place / "ca-cert.pem").symlink_to(files.ca)
        (place / f"{endpoint}-cert.pem").symlink_to(files.certificate)
        (place / f"{endpoint}-key.pem").symlink_to(files.key)
    return f"tls-creds-x509,id={CREDENTIALS},dir={place},endpoint={endpoint},verify-peer=on"
