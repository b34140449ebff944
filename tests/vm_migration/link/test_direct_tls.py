"""What a host's settings of OpenSSL must not change: below the records of a direct stream sealed ones may follow."""

import os
import subprocess
import sys
from pathlib import Path

from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue

SETTINGS = """
openssl_conf = site
[site]
ssl_conf = tls
[tls]
system_default = every
[every]
Options = KTLS
NumTickets = 4
"""
PROGRAM = """
import ssl, sys
from pathlib import Path
from vm_migration.link.direct_tls import client_context, server_context
from vm_migration.link.tls import TlsFiles
files = TlsFiles(*map(Path, sys.argv[1:]))
plain, server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_context(files), client_context(files)
print([bool(context.options & 8) for context in (plain, server, client)], plain.num_tickets, server.num_tickets)
"""


def test_the_kernel_makes_no_records_and_no_tickets_are_sent_whatever_the_host_says(tmp_path: Path) -> None:
    create_authority(tmp_path / "pki", "home")
    files = issue(tmp_path / "pki", Identity("home", Role.HOST, "host-b"))
    settings = tmp_path / "openssl.cnf"
    settings.write_text(SETTINGS)
    words = [str(file) for file in (files.ca, files.certificate, files.key)]
    environment = os.environ | {"OPENSSL_CONF": str(settings)}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.strip() == "[True, False, False] 4 0"
