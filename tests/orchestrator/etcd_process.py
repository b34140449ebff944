"""A real etcd for tests: members on loopback, started until they answer, and gone at the end."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.store.etcd.client import EtcdClient
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.daemon.etcd_place import EtcdPlace, EtcdTls
from vm_migration.errors import Refused
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.ports import free_ports

START_SECONDS = 30.0
_numbers = itertools.count(1)


@dataclass
class EtcdMember:
    """One member, which can be frozen, and ended as a crash does, and started again."""

    name: str
    client: str
    peer: str
    folder: Path
    cluster: str
    tls: TlsFiles | None = None
    fsync: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        words = etcd_command(
            self.folder, self.name, client=self.client, peer=self.peer, cluster=self.cluster, tls=self.tls
        )
        if not self.fsync:
            words.append("--unsafe-no-fsync")
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def freeze(self) -> None:
        """Stop every thread of it, and return when all stand still."""
        assert self.process is not None, f"{self.name} does not run"
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        assert self.process is not None, f"{self.name} does not run"
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Etcd:
    """A cluster, of one member or several."""

    members: list[EtcdMember]
    tls: EtcdTls | None = None

    @property
    def place(self) -> EtcdPlace:
        return EtcdPlace(tuple(one.client for one in self.members), self.tls)

    def new_site(self) -> str:
        """Return the name of a site that has no keys yet."""
        return f"site-{next(_numbers)}"

    def start(self) -> None:
        for member in self.members:
            member.start()
        self.answers()

    def answers(self) -> None:
        """Wait until a majority answers."""
        wait_for_answers(self.place)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have every member stand still while the context is entered."""
        for member in self.members:
            member.freeze()
        try:
            yield
        finally:
            for member in self.members:
                member.thaw()

    def kill(self) -> None:
        for member in self.members:
            member.kill()


def etcd_command(folder: Path, name: str, *, client: str, peer: str, cluster: str, tls: TlsFiles | None) -> list[str]:
    """Return what starts a member: clients meet it at one address, with TLS where it has files, peers at another."""
    url = f"{'http' if tls is None else 'https'}://{client}"
    words = ["etcd", "--name", name, "--data-dir", str(folder / name), "--logger", "zap"]
    words += ["--listen-client-urls", url, "--advertise-client-urls", url]
    words += ["--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"]
    words += ["--initial-cluster", cluster]
    if tls is None:
        return words
    words += ["--cert-file", str(tls.certificate), "--key-file", str(tls.key)]
    return [*words, "--trusted-ca-file", str(tls.ca), "--client-cert-auth"]


def wait_for_answers(place: EtcdPlace) -> None:
    """Wait until a majority answers."""
    until = time.monotonic() + START_SECONDS
    with contextlib.closing(EtcdClient(place)) as client:
        while not _answers(client):
            assert time.monotonic() < until, "etcd does not answer"
            time.sleep(0.05)  # it has no event for that


def _answers(client: EtcdClient) -> bool:
    try:
        client.range(api.RangeRequest(key=b"/"))
    except Refused:
        return False
    return True


def free_address() -> str:
    """Return an address on loopback at which nobody listens."""
    (port,) = free_ports(1)
    return f"127.0.0.1:{port}"


@contextlib.contextmanager
def running_etcd(folder: Path, members: int = 1, *, tls: TlsFiles | None = None, fsync: bool = True) -> Iterator[Etcd]:
    """Have a cluster run, and nothing of it afterwards; `tls` is the certificate that its members show.

    Members that tests end by a signal alone need no `fsync`: what they wrote lies in the page cache, which survives
    that, and deadlines of half a second do not depend on the disk. What is measured needs it, as a site's own etcd.
    """
    ports = [f"127.0.0.1:{port}" for port in free_ports(2 * members)]
    names = [f"member-{number}" for number in range(members)]
    cluster = ",".join(f"{name}=http://{peer}" for name, peer in zip(names, ports[members:], strict=True))
    made = zip(names, ports, ports[members:], strict=False)
    seen = None if tls is None else EtcdTls(tls.ca, tls.certificate, tls.key, tls.load().identity.name)
    etcd = Etcd([EtcdMember(name, client, peer, folder, cluster, tls, fsync) for name, client, peer in made], seen)
    try:
        etcd.start()
        yield etcd
    finally:
        etcd.kill()
