"""An orchestrator daemon beside the hosts of a test site, over a store of its own, and commands that turn to it."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.system.daemons import Daemon, program
from tests.system.site import SITE, Site
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import issue
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.ports import free_ports


@dataclass
class Orchestrator:
    """The daemon, its store, and the configuration of an operator who turns to it."""

    daemon: Daemon
    store: Path
    operator: Path
    alone: Path
    """The same store for commands that drive by themselves."""


@contextlib.contextmanager
def orchestrated(site: Site, name: str = "orchestrator") -> Iterator[Orchestrator]:
    """Have an orchestrator run; it is gone at the end, and was never needed by the machines."""
    with prepared_orchestrator(site, name) as made:
        made.daemon.start()
        yield made


@contextlib.contextmanager
def prepared_orchestrator(site: Site, name: str = "orchestrator") -> Iterator[Orchestrator]:
    """Have one that can be started."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        made = prepared(site, Path(folder), name)
        try:
            yield made
        finally:
            made.daemon.stop()


def prepared(site: Site, folder: Path, name: str) -> Orchestrator:
    """Write the configurations; nothing is started."""
    (port,) = free_ports(1)
    store = folder / f"{name}.db"
    text = site.configuration("operator").read_text()
    own = text.replace(f"sqlite://{site.folder}/orchestrator.db", f"sqlite://{store}")
    assert own != text
    alone = folder / "alone.toml"
    alone.write_text(own)
    with_daemon = own.replace("[site]\n", f'[site]\norchestrator = "127.0.0.1:{port}"\n')
    operator = folder / "operator.toml"
    operator.write_text(with_daemon)
    tls = _identity(site)
    identity = site.identities["operator"]
    config = folder / f"{name}.toml"
    config.write_text(
        with_daemon.replace(str(identity.certificate), str(tls.certificate)).replace(str(identity.key), str(tls.key))
    )
    command = [program("viaduct"), "orchestrator", "--config", str(config)]
    return Orchestrator(Daemon(name, command, folder), store, operator, alone)


def _identity(site: Site) -> TlsFiles:
    if "orchestrator" not in site.identities:
        site.identities["orchestrator"] = issue(site.folder / "pki", Identity(SITE, Role.ORCHESTRATOR, "orchestrator"))
    return site.identities["orchestrator"]
