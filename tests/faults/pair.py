"""Two orchestrators over one etcd beside a fault site, each on a cable of its own, made when a row first needs them."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.attempt import Attempt
from orchestrator.store.etcd.leadership import leader
from orchestrator.store.etcd.store import EtcdStore
from tests.faults.network import Network
from tests.orchestrator.etcd_process import etcd_command, wait_for_answers
from tests.system.daemons import Daemon, program
from tests.system.site import SITE
from tests.system.two_orchestrators import driver
from vm_migration.daemon.etcd_place import EtcdPlace, EtcdTls
from vm_migration.errors import Refused
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import issue
from vm_migration.link.tls import TlsFiles

FIRST, SECOND, KEEPER = "orchestrator", "standby", "broker"
"""Where each of them runs, and their etcd."""
_NAME = "etcd"
_LEAD_SECONDS = 30.0


@dataclass
class EtcdDaemon(Daemon):
    """An etcd; it says nothing of being ready, so it is asked."""

    place: EtcdPlace = field(default_factory=lambda: EtcdPlace(()))

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for_answers(self.place)


@dataclass(frozen=True)
class Seat:
    """One orchestrator of the two: the host on whose cable it hangs, and where it listens."""

    host: str
    address: str
    daemon: Daemon


class Pair:
    """Both, by the names that they sign with."""

    def __init__(self, folder: Path, network: Network, text: str, identities: Mapping[str, TlsFiles]) -> None:
        """Write their configuration; `text` is that of the site's own orchestrator, without its address."""
        # The site's own daemons have the first port of each host; the machine's name is the same on all of them.
        _, first, second, clients, peer = network.ports(5)
        ports, client = (first, second), f"{network.address(KEEPER)}:{clients}"
        own_peer = f"127.0.0.1:{peer}"
        mine = issue(folder / "pki", Identity(SITE, Role.HOST, _NAME), [network.address(KEEPER)])
        operator = identities["operator"]
        place = EtcdPlace((client,), EtcdTls(operator.ca, operator.certificate, operator.key, _NAME))
        words = etcd_command(
            folder, _NAME, client=client, peer=own_peer, cluster=f"{_NAME}=http://{own_peer}", tls=mine
        )
        self.etcd = EtcdDaemon(_NAME, [*network.inside(KEEPER), *words], folder, place=place)
        self.seats: dict[str, Seat] = {}
        addresses = [f"{network.address(host)}:{port}" for host, port in zip((FIRST, SECOND), ports, strict=True)]
        self._own = self._said(text, str(place), addresses)
        for host, address, port in zip((FIRST, SECOND), addresses, ports, strict=True):
            config = folder / f"pair-{host}.toml"
            config.write_text(f'{self._own}[audit]\nfile = "{folder}/pair-{host}.jsonl"\n')
            command = [program("viaduct"), "orchestrator", "--listen", address, "--config", str(config)]
            daemon = Daemon(f"pair-{host}", [*network.inside(host), *command], folder)
            self.seats[driver(port)] = Seat(host, address, daemon)
        self._store: EtcdStore | None = None

    @property
    def everyone(self) -> list[Daemon]:
        return [self.etcd, *(seat.daemon for seat in self.seats.values())]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(seat.address for seat in self.seats.values())

    @property
    def store(self) -> EtcdStore:
        if self._store is None:
            self._store = EtcdStore(self.etcd.place, SITE)
        return self._store

    def text_for(self, operator: TlsFiles, own: TlsFiles) -> str:
        """Return the configuration of an operator who turns to them."""
        return self._own.replace(str(own.certificate), str(operator.certificate)).replace(
            str(own.key), str(operator.key)
        )

    def leading(self) -> Seat | None:
        """Return who leads at this moment."""
        return self.seats.get(leader(self.store.client, self.store.keys.leader))

    def wait_led(self) -> None:
        """Wait until somebody leads."""
        until = time.monotonic() + _LEAD_SECONDS
        while self.leading() is None:
            assert time.monotonic() < until, "nobody leads"
            time.sleep(0.02)  # it is looked at, as those who stand by do

    def first_of(self, machine: str) -> Attempt | None:
        """Return the first attempt of a machine."""
        try:
            found = [row for row in self.store.attempts(everything=True) if row.machine == machine]
        except Refused:
            return None
        return min(found, key=lambda row: row.created_at, default=None)

    def close(self) -> None:
        """Let go of the connection; whoever made the daemons ends them."""
        if self._store is not None:
            self._store.close()

    @staticmethod
    def _said(text: str, store: str, addresses: list[str]) -> str:
        before, _, rest = text.partition('store = "')
        _, _, after = rest.partition('"')
        return f'{before}store = "{store}"\norchestrator = "{",".join(addresses)}"{after}[etcd]\nname = "{_NAME}"\n'
