"""Two orchestrators over an etcd of three members beside a fault site, made when a row first needs them.

Each orchestrator has a cable of its own, and a member of etcd on it; the third member is where the broker is.
"""

import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""Where each of them runs, and where no orchestrator of them does."""
MEMBERS = (FIRST, SECOND, KEEPER)
_NAME = "etcd"
_LEAD_SECONDS = 30.0
_ASK_SECONDS = 1.0


@dataclass
class EtcdDaemon(Daemon):
    """A member of etcd; it says nothing of being ready, so those who need most of them ask."""

    client: str = ""

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


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
        _, first, second, *others = network.ports(3 + 2 * len(MEMBERS))
        ports = (first, second)
        operator = identities["operator"]
        self._tls = EtcdTls(operator.ca, operator.certificate, operator.key, _NAME)
        self.members = self._cluster(folder, network, others[: len(MEMBERS)], others[len(MEMBERS) :])
        self.place = EtcdPlace(tuple(member.client for member in self.members), self._tls)
        self.seats: dict[str, Seat] = {}
        addresses = [f"{network.address(host)}:{port}" for host, port in zip((FIRST, SECOND), ports, strict=True)]
        self._own = self._said(text, str(self.place), addresses)
        for host, address, port in zip((FIRST, SECOND), addresses, ports, strict=True):
            config = folder / f"pair-{host}.toml"
            config.write_text(f'{self._own}[audit]\nfile = "{folder}/pair-{host}.jsonl"\n')
            command = [program("viaduct"), "orchestrator", "--listen", address, "--config", str(config)]
            daemon = Daemon(f"pair-{host}", [*network.inside(host), *command], folder)
            self.seats[driver(port)] = Seat(host, address, daemon)
        self._store: EtcdStore | None = None

    @property
    def everyone(self) -> list[Daemon]:
        return [*self.members, *(seat.daemon for seat in self.seats.values())]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(seat.address for seat in self.seats.values())

    @property
    def store(self) -> EtcdStore:
        if self._store is None:
            self._store = EtcdStore(self.place, SITE)
        return self._store

    def text_for(self, operator: TlsFiles, own: TlsFiles) -> str:
        """Return the configuration of an operator who turns to them."""
        return self._own.replace(str(own.certificate), str(operator.certificate)).replace(
            str(own.key), str(operator.key)
        )

    def leading(self) -> Seat | None:
        """Return who leads at this moment."""
        return self.seats.get(leader(self.store.client, self.store.keys.leader))

    def wait_answers(self) -> None:
        """Wait until most members of etcd answer."""
        wait_for_answers(self.place)

    def members_the_leading_first(self) -> list[EtcdDaemon]:
        """Return the members that run, the one in front that leads etcd at this moment, as it says itself."""
        return sorted((member for member in self.members if member.running), key=self._leads, reverse=True)

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

    def _cluster(
        self, folder: Path, network: Network, clients: Sequence[int], peers: Sequence[int]
    ) -> list[EtcdDaemon]:
        addresses = [network.address(host) for host in MEMBERS]
        mine = issue(folder / "pki", Identity(SITE, Role.HOST, _NAME), list(dict.fromkeys(addresses)))
        at_peers = [f"{address}:{port}" for address, port in zip(addresses, peers, strict=True)]
        names = [f"{_NAME}-{host}" for host in MEMBERS]
        cluster = ",".join(f"{name}=http://{peer}" for name, peer in zip(names, at_peers, strict=True))
        made = []
        for host, name, address, port, peer in zip(MEMBERS, names, addresses, clients, at_peers, strict=True):
            client = f"{address}:{port}"
            words = etcd_command(folder, name, client=client, peer=peer, cluster=cluster, tls=mine)
            made.append(EtcdDaemon(name, [*network.inside(host), *words], folder, client=client))
        return made

    def _leads(self, member: EtcdDaemon) -> bool:
        trust = ssl.create_default_context(cafile=str(self._tls.ca))
        trust.load_cert_chain(str(self._tls.certificate), str(self._tls.key))
        try:
            with urllib.request.urlopen(
                f"https://{member.client}/metrics", timeout=_ASK_SECONDS, context=trust
            ) as answer:
                return b"\netcd_server_is_leader 1\n" in answer.read()
        except OSError:
            return False

    @staticmethod
    def _said(text: str, store: str, addresses: list[str]) -> str:
        before, _, rest = text.partition('store = "')
        _, _, after = rest.partition('"')
        return f'{before}store = "{store}"\norchestrator = "{",".join(addresses)}"{after}[etcd]\nname = "{_NAME}"\n'
