"""Brokers that want to know who comes: a password, certificates."""

import asyncio
from pathlib import Path

from tests.vm_migration.daemon.mqtt_brokers import Mosquitto
from tests.vm_migration.daemon.published_site import STATUS, connected
from tests.vm_migration.daemon.written_log import Written
from vm_migration.daemon.broker_url import BrokerTls, parse_broker
from vm_migration.daemon.status_publisher import StatusPublisher
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue

RIGHT, WRONG = "swordfish", "sardine"


async def test_a_user_and_a_password_are_used(tmp_path: Path) -> None:
    users = tmp_path / "users"
    created = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", "-c", str(users), "anna", RIGHT)
    assert await created.wait() == 0
    server = Mosquitto(tmp_path, extra=f"allow_anonymous false\npassword_file {users}")
    await server.start()
    written = Written()
    try:
        right = parse_broker(server.running.url, user="anna", password=RIGHT)
        async with StatusPublisher(right, status_topic=STATUS, identifier="one") as status:
            await connected(status)
        wrong = parse_broker(server.running.url, user="anna", password=WRONG)
        async with StatusPublisher(wrong, status_topic=STATUS, identifier="two") as status:
            await written.until("broker away")
            assert not status.connected
    finally:
        await server.stop()
    assert WRONG not in written.getvalue() + repr(wrong)
    assert RIGHT not in repr(right)


async def test_a_broker_under_tls_with_our_certificates(tmp_path: Path) -> None:
    for name in ("pki", "other"):
        create_authority(tmp_path / name, "home")
    served = issue(tmp_path / "pki", Identity("home", Role.HOST, "broker"))
    mine = issue(tmp_path / "pki", Identity("home", Role.ORCHESTRATOR, "main"))
    files = f"cafile {served.ca}\ncertfile {served.certificate}\nkeyfile {served.key}"
    server = Mosquitto(tmp_path, extra=f"{files}\nrequire_certificate true\nallow_anonymous true")
    await server.start()
    url = f"mqtts://127.0.0.1:{server.port}"
    written = Written()
    try:
        right = parse_broker(url, tls=BrokerTls(mine.ca, mine.certificate, mine.key))
        async with StatusPublisher(right, status_topic=STATUS, identifier="one") as status:
            await connected(status)
        assert "V5" in written.getvalue()
        wrong = parse_broker(url, tls=BrokerTls(tmp_path / "other" / "ca.pem", mine.certificate, mine.key))
        async with StatusPublisher(wrong, status_topic=STATUS, identifier="two") as status:
            await written.until("broker away")
            assert not status.connected
    finally:
        await server.stop()
