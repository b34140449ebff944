"""The broker's access list at a real Mosquitto: each role publishes its own subtree, and only who may read reads."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.store.claim import DAEMON as DRIVER
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Reader, RunningBroker
from tests.vm_migration.daemon.published_site import (
    ATTEMPT,
    EVACUATION,
    OWNER,
    TOPICS,
    Journal,
    connected,
    event,
    progress,
)
from tests.vm_migration.daemon.written_log import Written
from vm_migration.daemon.broker_acl import broker_acl, password_user
from vm_migration.daemon.broker_url import Broker, BrokerTls, parse_broker
from vm_migration.daemon.status_publisher import StatusPublisher
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "deploy" / "mosquitto"
HOSTS = [Identity("home", Role.HOST, name) for name in ("host-a", "host-b")]
MAIN, ANNA, BOARD = (
    Identity("home", role, name)
    for role, name in ((Role.ORCHESTRATOR, "main"), (Role.OPERATOR, "anna"), (Role.VIEWER, "board"))
)
SITE = [*HOSTS, MAIN, ANNA, BOARD]


@dataclass
class Site:
    """A broker set up as deploy/mosquitto says, and everybody's certificate."""

    server: Mosquitto
    files: dict[Identity, TlsFiles]

    def broker(self, who: Identity) -> Broker:
        files = self.files[who]
        url = f"mqtts://127.0.0.1:{self.server.port}"
        return parse_broker(url, tls=BrokerTls(files.ca, files.certificate, files.key))

    def publisher(self, who: Identity, topic: str, journal: Journal | None = None) -> StatusPublisher:
        return StatusPublisher(
            self.broker(who), status_topic=topic, identifier=f"{who.role}-{who.name}", outbox=journal or Journal()
        )

    def arguments(self, who: Identity) -> tuple[str, ...]:
        files = self.files[who]
        return ("--cafile", str(files.ca), "--cert", str(files.certificate), "--key", str(files.key))

    def running(self) -> RunningBroker:
        return self.server.running


def shipped_settings(folder: Path, broker: TlsFiles) -> str:
    """Return deploy/mosquitto/viaduct.conf with this test's paths, without the listener, which the test opens."""
    lines = (SHIPPED / "viaduct.conf").read_text().replace("/etc/mosquitto/viaduct.acl", str(folder / "viaduct.acl"))
    lines = lines.replace("/etc/viaduct/pki/ca.pem", str(broker.ca))
    lines = lines.replace("/etc/mosquitto/certs/broker.pem", str(broker.certificate))
    lines = lines.replace("/etc/mosquitto/certs/broker.key", str(broker.key))
    return "\n".join(line for line in lines.splitlines() if not line.startswith("listener"))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    create_authority(tmp_path / "pki", "home")
    served = issue(tmp_path / "pki", Identity("home", Role.HOST, "broker"))
    files = {who: issue(tmp_path / "pki", who) for who in SITE}
    (tmp_path / "viaduct.acl").write_text(broker_acl("home", SITE))
    (tmp_path / "viaduct.acl").chmod(0o600)
    async with Mosquitto(tmp_path, extra=shipped_settings(tmp_path, served)) as server:
        yield Site(server, files)


async def told(reader: Reader, end: str) -> list[str]:
    """Return the topics that came up to one with this end."""
    await reader.until_topic(end)
    return [message.topic for message in reader.messages]


async def test_everybody_publishes_what_is_his_and_the_viewer_reads_it(site: Site) -> None:
    journal = Journal()
    journal.add(OWNER)
    journal.add(EVACUATION)
    journal.add(event(2))
    async with site.running().reader(*site.arguments(BOARD)) as reader:
        for host in HOSTS:
            async with site.publisher(host, TOPICS.agent(host.name, "source")) as agent:
                await connected(agent)
        async with site.publisher(MAIN, TOPICS.orchestrator(f"{DRIVER}-host-a-7000"), journal) as main:
            await connected(main)
            main.progress(ATTEMPT, progress(3))
            await reader.until_topic("/progress")
        async with site.publisher(ANNA, TOPICS.orchestrator("cli-host-a-77")) as command:
            await connected(command)
        topics = await told(reader, "cli-host-a-77/status")
    for topic in (
        TOPICS.agent("host-a", "source"),
        TOPICS.agent("host-b", "source"),
        TOPICS.orchestrator(f"{DRIVER}-host-a-7000"),
        TOPICS.owner("qat-guest"),
        EVACUATION.topic,
        TOPICS.event(ATTEMPT),
        TOPICS.progress(ATTEMPT),
    ):
        assert topic in topics


@pytest.mark.parametrize(
    ("who", "topic"),
    [
        (HOSTS[0], TOPICS.agent("host-b", "dest")),
        (HOSTS[0], TOPICS.owner("qat-guest")),
        (HOSTS[0], EVACUATION.topic),
        (HOSTS[0], TOPICS.orchestrator(DRIVER)),
        (MAIN, TOPICS.agent("host-a", "dest")),
        (ANNA, TOPICS.agent("host-a", "dest")),
        (BOARD, TOPICS.owner("qat-guest")),
        (BOARD, TOPICS.orchestrator(DRIVER)),
    ],
)
async def test_nobody_publishes_what_is_another_s_and_the_log_says_so(site: Site, who: Identity, topic: str) -> None:
    written = Written()
    async with site.running().reader(*site.arguments(BOARD)) as reader:
        async with site.publisher(who, topic) as intruder:
            await written.until("publication refused")
            del intruder
        async with site.publisher(ANNA, TOPICS.orchestrator("after")) as command:
            await connected(command)
        assert topic not in await told(reader, "after/status")
    assert "Not authorized" in written.getvalue()
    assert topic in written.getvalue()


@pytest.mark.parametrize("who", [HOSTS[0], MAIN, ANNA], ids=lambda who: str(who.role))
async def test_only_a_viewer_reads(site: Site, who: Identity) -> None:
    async with (
        site.running().reader(*site.arguments(BOARD)) as board,
        site.running().reader(*site.arguments(who)) as reader,
    ):
        async with site.publisher(MAIN, TOPICS.orchestrator(DRIVER)) as main:
            await connected(main)
        await board.until_topic("/status", 2)
        assert reader.messages == []


async def test_nobody_comes_in_without_a_certificate_of_the_site(site: Site, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", "home")
    stranger = issue(tmp_path / "other", HOSTS[0])
    ours = site.files[MAIN].ca
    for tls in (BrokerTls(ours), BrokerTls(ours, stranger.certificate, stranger.key)):
        written = Written()
        broker = parse_broker(f"mqtts://127.0.0.1:{site.server.port}", tls=tls)
        async with StatusPublisher(broker, status_topic=TOPICS.orchestrator(DRIVER), identifier="x") as status:
            await written.until("broker away")
            assert not status.connected


def test_the_shipped_list_is_what_two_hosts_give() -> None:
    assert (SHIPPED / "viaduct.acl").read_text() == broker_acl("home", SITE)


def test_users_with_passwords_are_named_by_role() -> None:
    assert f"user {password_user(BOARD)}\ntopic read viaduct/v1/home/#\n" in broker_acl("home", SITE, passwords=True)
