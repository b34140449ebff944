"""Two orchestrators over one etcd beside the hosts of a test site, and commands that turn to whichever leads."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.attempt import Attempt
from orchestrator.store.etcd.leadership import leader
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.store import Ownership
from tests.orchestrator.etcd_process import Etcd, running_etcd
from tests.system.attempts import DEADLINE
from tests.system.daemons import Daemon, launch, program
from tests.system.site import SITE, Site
from vm_migration.loopback.ports import free_ports


@dataclass
class Pair:
    """Both daemons by the names that they sign with, their etcd, and the configuration of an operator."""

    etcd: Etcd
    daemons: dict[str, Daemon]
    operator: Path

    def leader(self) -> str:
        """Return who leads, as the lease says."""
        with EtcdStore(self.etcd.place, SITE) as store:
            found = _holder(store)
        assert found, "Nobody leads"
        return found

    def other(self, name: str) -> str:
        """Return the one that is not this one."""
        (found,) = self.daemons.keys() - {name}
        return found

    async def led(self, *, otherwise_than: str = "") -> str:
        """Wait until somebody leads, or somebody else."""
        with EtcdStore(self.etcd.place, SITE) as store:
            async with asyncio.timeout(DEADLINE):
                while (found := _holder(store)) in {"", otherwise_than}:  # noqa: ASYNC110 - looked at, as etcd tells
                    await asyncio.sleep(0.02)
        return found

    async def row(self, *, term: int = 1, ended: bool = False) -> Attempt:
        """Return the only attempt of the store, once it is driven in a term, or has ended where that is waited for."""
        with EtcdStore(self.etcd.place, SITE) as store:
            async with asyncio.timeout(DEADLINE):
                while True:
                    (found,) = store.attempts(everything=True)
                    if found.term >= term and (found.ended or not ended):
                        return found
                    await asyncio.sleep(0.02)  # another process writes it

    def owners(self) -> tuple[Ownership, ...]:
        """Return where machines live, as the store says."""
        with EtcdStore(self.etcd.place, SITE) as store:
            return store.owners()


def _holder(store: EtcdStore) -> str:
    return leader(store.client, store.keys.leader)


@contextlib.contextmanager
def two_orchestrators(site: Site, *, members: int = 1) -> Iterator[Pair]:
    """Have two orchestrators run over an etcd of their own; nothing of them is left at the end."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        folder = Path(name)
        with running_etcd(folder, members) as etcd:
            pair = prepared(site, folder, etcd)
            try:
                launch(list(pair.daemons.values()))
                yield pair
            finally:
                for daemon in pair.daemons.values():
                    daemon.stop()


def prepared(site: Site, folder: Path, etcd: Etcd) -> Pair:
    """Write the configurations; nothing is started."""
    ports = free_ports(2)
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    text = site.configuration("operator").read_text()
    own = text.replace(f"sqlite://{site.folder}/orchestrator.db", str(etcd.place))
    assert own != text
    own = own.replace("[site]\n", f'[site]\norchestrator = "{addresses}"\n')
    operator = folder / "operator.toml"
    operator.write_text(own)
    mine, theirs = site.identities["operator"], site.identities["orchestrator"]
    config = folder / "orchestrator.toml"
    audits = f'[audit]\nfile = "{folder}/audit.log"\n'
    config.write_text(
        own.replace(str(mine.certificate), str(theirs.certificate)).replace(str(mine.key), str(theirs.key)) + audits
    )
    daemons = {}
    for port in ports:
        command = [program("viaduct"), "orchestrator", "--listen", f"127.0.0.1:{port}", "--config", str(config)]
        daemon = Daemon(f"orchestrator-{port}", command, folder)
        daemons[driver(port)] = daemon
    return Pair(etcd, daemons, operator)


def driver(port: int) -> str:
    """Return the name under which a daemon that listens at a port signs what it drives."""
    host = socket.gethostname().split(".")[0].lower()
    return f"orchestrator-{host}-{port}"
