"""Whole migrations, of which nothing that anybody can read holds a guest's memory, a password, a key or a secret.

The site is as strangers would find it: mutual TLS, a broker with TLS and passwords, an orchestrator, and every daemon
with --debug. Machines move over each transport, and one attempt is cancelled in its middle.
"""

import base64
import contextlib
import mmap
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import in_the_middle, machine, specification
from tests.system.command import Ended, finished, running, viaduct
from tests.system.leaks import Secrets, command_lines, files_under, members_of
from tests.system.orchestrated import Orchestrator, prepared_orchestrator
from tests.system.processes import ram_file
from tests.system.site import SITE, Site
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Reader, Received, free_port
from vm_migration.daemon.broker_acl import broker_acl, password_user
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import issue

pytestmark = pytest.mark.timeout(300)  # many processes start in each of them

GUESTS = b"guest-memory-" + secrets.token_hex(10).encode()
"""What the guest's RAM is full of; text, so that no spelling of it can hide it."""
DAEMONS = (
    *(Identity(SITE, Role.HOST, name) for name in ("host-a", "host-b")),
    Identity(SITE, Role.OPERATOR, "operator"),
)
"""Who publishes; the orchestrator does as the operator does whose configuration it has."""
VIEWER = Identity(SITE, Role.VIEWER, "viewer")
RAM = 64 << 20
SLOWLY = ("--downtime-limit", "4s", "--max-bandwidth", "16MiB/s", "--compression", "none", "--measure", "0s")
ENDLESSLY = ("--max-bandwidth", "1MiB/s", "--compression", "none", "--measure", "0s")
JOURNEY = (("host-a", "host-b", "grpc"), ("host-b", "host-a", "direct"), ("host-a", "host-b", "sealed"))


@dataclass
class Watched:
    """A site, who turns to it, and everything that it has said."""

    site: Site
    orchestrator: Orchestrator
    reader: Reader
    secrets: Secrets
    said: dict[str, bytes] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)

    def heard(self, ended: Ended, *words: str) -> Ended:
        """Keep what a command has printed."""
        self.said[f"viaduct {' '.join(words)} #{len(self.said)}"] = (ended.out + ended.err).encode()
        return ended

    async def command(self, *words: str) -> Ended:
        return self.heard(await viaduct(self.site, *words, config=self.orchestrator.operator), *words)


@contextlib.contextmanager
def made_site(folder: Path, passwords: dict[Identity, str], port: int) -> Iterator[Site]:
    """Have a site whose daemons log all they can, know a password of their own, and leave their metrics."""
    (folder / "metrics").mkdir()
    site = Site(folder, {"host-a": "1GiB", "host-b": "1GiB"}, broker=f"mqtts://127.0.0.1:{port}")
    for who in DAEMONS:
        password = folder / f"{who.name}.password"
        password.touch(0o600)
        password.write_text(passwords[who])
        with site.configuration(who.name).open("a") as configuration:
            configuration.write(f'[mqtt]\nuser = "{password_user(who)}"\npassword_file = "{password}"\n')
            configuration.write(f'[metrics]\nfolder = "{folder}/metrics"\n')
    for daemon in site.daemons.values():
        daemon.command = [*daemon.command, "--debug"]
    with contextlib.closing(site):
        yield site


def broker_for(site: Site, passwords: dict[Identity, str], port: int) -> Mosquitto:
    """Return a broker under TLS whose users have passwords."""
    folder = site.folder
    files = issue(folder / "pki", Identity(SITE, Role.HOST, "broker"))
    known, allowed = folder / "broker.passwords", folder / "broker.acl"
    known.write_text("".join(f"{password_user(who)}:{password}\n" for who, password in passwords.items()))
    hashing = shutil.which("mosquitto_passwd")
    assert hashing, "mosquitto_passwd is missing: apt-get install mosquitto"
    subprocess.run([hashing, "-U", str(known)], check=True, timeout=20)
    allowed.write_text(broker_acl(SITE, passwords, passwords=True))
    for path in (known, allowed):
        path.chmod(0o600)
    tls = f"cafile {files.ca}\ncertfile {files.certificate}\nkeyfile {files.key}\n"
    extra = f"{tls}allow_anonymous false\npassword_file {known}\nacl_file {allowed}"
    return Mosquitto(folder, extra=extra, port=port)


@asynccontextmanager
async def watched_site() -> AsyncIterator[Watched]:
    """Have all of it run, and gather what is told over MQTT."""
    passwords = {who: secrets.token_urlsafe(18) for who in (*DAEMONS, VIEWER)}
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-") as name,
        made_site(Path(name), passwords, port) as site,
        prepared_orchestrator(site) as orchestrator,
    ):
        broker = broker_for(site, passwords, port)
        await broker.start()
        try:
            orchestrator.daemon.command = [*orchestrator.daemon.command, "--debug"]
            site.run("host-a", "host-b")
            orchestrator.daemon.start()
            found = Secrets()
            found.add("guest memory", GUESTS)
            for who in DAEMONS:
                found.add(f"password of {who.name}", passwords[who].encode())
            for path in (site.folder / "pki").glob("*.key"):
                found.add_key(path)
            # The reader is no part of the site: its password is on its command line, and not looked for.
            viewer = ("--cafile", str(site.folder / "pki" / "ca.pem"), "-u", password_user(VIEWER))
            async with broker.running.reader(*viewer, "-P", passwords[VIEWER]) as reader:
                yield Watched(site, orchestrator, reader, found)
        finally:
            await broker.stop()


async def moved(watched: Watched, agents: Agents, uuid: str, journey: tuple[str, str, str], *, cancelled: bool) -> None:
    """Move the machine as a person would; learn the handover's secret from the source's journal meanwhile."""
    source, destination, transport = journey
    pace = ENDLESSLY if cancelled else SLOWLY
    words = ("migrate", "secretive", "--to", destination, "--transport", transport, *pace, "--json")
    async with running(watched.site, *words, config=watched.orchestrator.operator) as asking:
        await in_the_middle(agents, source, uuid)
        record = watched.site.record(source, uuid)
        assert record is not None
        assert record.secret
        watched.secrets.add("handover secret", bytes.fromhex(record.secret))
        watched.attempts.append(record.attempt or "")
        if cancelled:
            assert (await watched.command("cancel", watched.attempts[-1], "--json")).exit_code == 0
        ended = watched.heard(await finished(asking), *words)
    assert ended.document["outcome"] == ("cancelled" if cancelled else "completed"), ended.err


async def looked_at(watched: Watched) -> None:
    """Ask for everything that a person can ask for."""
    attempt = watched.attempts[-1]
    for words in (
        ("list", "--all", "--json"),
        ("show", attempt, "--json"),
        ("watch", attempt, "--json"),
        ("report", attempt, "--html", str(watched.site.folder / "report.html")),
        ("machine", "list", "--json"),
        ("host", "list", "--json"),
        ("preflight", "secretive", "--to", "any", "--json"),
        ("doctor", "--json", "--bundle", str(watched.site.folder / "help.tar.gz")),
        ("migrate", "secretive", "--to", "nowhere", "--json", "--debug"),
    ):
        await watched.command(*words)


def told_as_completed(attempt: str) -> Callable[[list[Received]], bool]:
    """Return whether the end of an attempt was told over MQTT."""
    return lambda told: any(f"/{attempt}/" in one.topic and '"completed"' in one.payload for one in told)


async def test_nothing_that_can_be_read_holds_memory_password_key_or_secret() -> None:
    async with watched_site() as watched, watched.site.agents() as agents:
        site = watched.site
        image = site.folder / "image"
        image.write_bytes((GUESTS + b" ") * (RAM // (len(GUESTS) + 1)))
        wanted = specification(
            "secretive", memory_image=str(image), guest_working_set="8MiB", guest_cpu_dirty_rate="2MiB/s"
        )
        with command_lines() as lines:
            async with machine(site, agents, wanted) as created:
                await moved(watched, agents, created.machine, JOURNEY[0], cancelled=True)
                for journey in JOURNEY:
                    await moved(watched, agents, created.machine, journey, cancelled=False)
                await looked_at(watched)
                holder = site.instance("host-b", created.machine).vmm.pid
                require_there(ram_file(holder, "secretive"), GUESTS)
                await watched.reader.until(told_as_completed(watched.attempts[-1]))
                metrics = files_under(site.folder / "metrics", "*.prom")
        places = {
            **watched.said,
            **lines,
            **metrics,
            **files_under(site.folder, "*.log", "audit.jsonl", "report.html"),
            **files_under(watched.orchestrator.store.parent, "*.log", "audit.jsonl", "orchestrator.db*"),
            **members_of(site.folder / "help.tar.gz"),
            **{f"{one.topic} over MQTT": one.payload.encode() for one in watched.reader.messages},
        }
        assert any(b"viaduct-source-agent" in line for line in lines.values())
        assert all(data for place, data in places.items() if place.endswith((".log", ".prom", ".jsonl")))
        assert watched.secrets.found_in(places) == []
        assert len(watched.attempts) == len(set(watched.attempts)) == 1 + len(JOURNEY)


@pytest.mark.parametrize(
    "spelled", [bytes, bytes.hex, repr, lambda data: base64.b64encode(b"x" + data + b"yz").decode()]
)
def test_a_secret_is_found_however_it_is_spelled(spelled: Callable[[bytes], str | bytes]) -> None:
    found = Secrets()
    found.add("password", b"swordfish-and-more")
    told = spelled(b"swordfish-and-more")
    data = b"before " + (told if isinstance(told, bytes) else told.encode()) + b" after"
    assert found.found_in({"log": data, "empty": b""})
    assert not found.found_in({"log": b"before after"})


def require_there(path: Path, secret: bytes) -> None:
    """Check that a machine's RAM holds what must be found nowhere else."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as ram:
        assert ram.find(secret) >= 0
