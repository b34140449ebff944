"""The whole of it as processes: a broker, the simulated hosts, the orchestrator's daemon, and a subscriber."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.scale.fleet import GIB, FleetDescription, Happened, Pace, Place, written
from benchmarks.scale.told import FORMAT, Message, happened_of, message_of
from tests.system.attempts import specification
from tests.system.daemons import Daemon, launch, program
from tests.system.site import SITE
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.loopback.ports import free_ports

_READY_SECONDS: Final = 180.0
_RAM: Final = 4 * GIB
_BUDGET: Final = 256 * GIB
_LINK: Final = 1_250_000_000


def certificates(folder: Path, hosts: int) -> Path:
    """Make a site's authority and everybody's certificates, and return their folder."""
    create_authority(folder, SITE)
    for host in names(hosts):
        issue(folder, Identity(SITE, Role.HOST, host))
    for role in (Role.OPERATOR, Role.ORCHESTRATOR):
        issue(folder, Identity(SITE, role, role.value))
    return folder


def names(hosts: int) -> list[str]:
    """Return what the hosts are called."""
    return [f"host-{number:04}" for number in range(hosts)]


@dataclass(frozen=True, slots=True)
class Hosts:
    """How many there are, each with so many machines, and how long an attempt takes."""

    count: int
    machines: int
    pace: Pace


@dataclass
class ScaleSite:
    """The processes, and what came of them so far."""

    folder: Path
    operator: Path
    orchestrator: Daemon
    fleet: Daemon
    happened: list[Happened] = field(default_factory=list)
    told: list[Message] = field(default_factory=list)
    _offsets: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Read what was written since the last look."""
        self.happened += [happened_of(line) for line in self._new("happened.txt")]
        self.told += [one for line in self._new("told.txt") if (one := message_of(line)) is not None]

    def resident_mib(self, *, most: bool = False) -> float:
        """Return the orchestrator's resident memory, now or at its most, in MiB."""
        wanted = "VmHWM:" if most else "VmRSS:"
        status = Path(f"/proc/{self.orchestrator.pid}/status").read_text()
        (kib,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith(wanted)]
        return kib / 1024

    def cpu_seconds(self) -> float:
        """Return the processor time that the orchestrator has used."""
        fields = Path(f"/proc/{self.orchestrator.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _new(self, name: str) -> list[str]:
        """Return the whole lines that were appended to a file since it was read last."""
        path, since = self.folder / name, self._offsets.get(name, 0)
        with path.open("rb") as file:
            file.seek(since)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[name] = since + len(whole)
        return whole.decode().splitlines()


@contextlib.asynccontextmanager
async def scale_site(folder: Path, pki: Path, hosts: Hosts) -> AsyncIterator[ScaleSite]:
    """Run all of it while the context is entered; nothing of it is left afterwards."""
    broker = Mosquitto(folder)
    await broker.start()
    try:
        with _site(folder, pki, hosts, broker) as site:
            yield site
    finally:
        await broker.stop()


@contextlib.contextmanager
def _site(folder: Path, pki: Path, hosts: Hosts, broker: Mosquitto) -> Iterator[ScaleSite]:
    ports = iter(free_ports(2 * hosts.count + 1))
    places = {host: Place(f"127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}") for host in names(hosts.count)}
    text = written(specification("NAME", memory_size=f"{_RAM >> 30}GiB"))
    description = FleetDescription(SITE, str(pki), places, hosts.machines, _RAM, _BUDGET, _LINK, text, hosts.pace)
    (folder / "fleet.json").write_bytes(msgspec.json.encode(description))
    address = f"127.0.0.1:{next(ports)}"
    for role in (Role.OPERATOR, Role.ORCHESTRATOR):
        own = f'mqtt = "{broker.running.url}"\norchestrator = "{address}"\n'
        (folder / f"{role}.toml").write_text(_configuration(folder, role, own, description))
    serving = [
        sys.executable,
        "-m",
        "benchmarks.scale.serving",
        str(folder / "fleet.json"),
        str(folder / "happened.txt"),
    ]
    driving = [program("viaduct"), "orchestrator", "--config", str(folder / "orchestrator.toml")]
    fleet, orchestrator = Daemon("fleet", serving, folder), Daemon("orchestrator", driving, folder)
    site = ScaleSite(folder, folder / "operator.toml", orchestrator, fleet)
    with _subscriber(broker, folder / "told.txt"):
        try:
            launch([fleet], _READY_SECONDS)
            orchestrator.start()
            yield site
        finally:
            orchestrator.stop()
            fleet.kill()  # it keeps nothing that could be lost


@contextlib.contextmanager
def _subscriber(broker: Mosquitto, told: Path) -> Iterator[None]:
    """Have mosquitto_sub write down everything that is published."""
    found = shutil.which("mosquitto_sub")
    assert found, "mosquitto_sub is missing: apt-get install mosquitto-clients"
    where = ("-h", broker.running.host, "-p", str(broker.running.port), "-V", "mqttv5", "-q", "1")
    # Line by line: into a file it would write by the block.
    command = ("stdbuf", "-oL", found, *where, "-t", f"viaduct/v1/{SITE}/migration/#", "-F", FORMAT)
    with told.open("wb") as file, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file) as process:
        try:
            yield
        finally:
            process.kill()


def _configuration(folder: Path, role: Role, site: str, description: FleetDescription) -> str:
    """Return what somebody of a role reads; `site` is what stands in that section beside the name and the store."""
    pki = description.pki
    hosts = "".join(
        f'[host.{host}]\nsource = "{place.source}"\ndest = "{place.dest}"\nbandwidth = "10Gbit/s"\n'
        for host, place in description.hosts.items()
    )
    return (
        f'[site]\nname = "{SITE}"\nstore = "sqlite://{folder}/orchestrator.db"\n{site}'
        f'[tls]\nca = "{pki}/ca.pem"\ncertificate = "{pki}/{role}.pem"\nkey = "{pki}/{role}.key"\n{hosts}'
    )
