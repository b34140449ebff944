"""Certificates that are replaced while a server serves: new connections see the new one, open ones go on."""

import asyncio
import io
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import pytest

from tests.vm_migration.link.answering_agent import PEER, Site, check, refusal, services, shown
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1.destination_pb2_grpc import DestinationStub
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.errors import InvalidInput, Unreachable
from vm_migration.link import direct_tls, tls
from vm_migration.link.call import call
from vm_migration.link.changed_files import AGAIN, NOT_RENEWED
from vm_migration.link.channel import open_channel
from vm_migration.link.direct_tls import ServerContexts, client_context
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, inspect, issue, renew
from vm_migration.link.renewal import Renewal
from vm_migration.link.server import AgentServer
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs


async def next_of(watching: grpc.aio.UnaryStreamCall[source.AttemptRequest, source.AttemptReport]) -> int:
    report = await watching.read()
    assert isinstance(report, source.AttemptReport)
    return report.sequence


def pem(files: TlsFiles) -> str:
    return files.certificate.read_text()


async def test_a_new_connection_sees_the_new_certificate_and_an_open_one_goes_on(site: Site) -> None:
    files, client = site.issue("host", "host-b"), site.issue("orchestrator", "main")
    async with (
        AgentServer("127.0.0.1:0", files, services(silent=True)) as server,
        open_channel(server.address, client, "host-b") as channel,
    ):
        watching = SourceStub(channel).Watch(source.AttemptRequest())
        assert await next_of(watching) == 1
        assert await asyncio.to_thread(shown, server.address, client) == pem(files)
        before = pem(files)
        renew(site.folder, "host-b")
        renew(site.folder, "main")
        assert pem(files) != before
        assert await asyncio.to_thread(shown, server.address, client) == pem(files)
        assert await check(server.address, client) == "viaduct://home/orchestrator/main"
        assert await next_of(watching) == 2
        old = DestinationStub(channel).CheckIncoming  # a call on the connection of before
        answer = await call(old, destination.CheckIncomingRequest(), peer=PEER, deadline=10)
        assert answer.blockers[0].message == "viaduct://home/orchestrator/main"
        watching.cancel()


async def test_half_a_replacement_shuts_nobody_out(site: Site) -> None:
    files, client = site.issue("host", "host-b"), site.issue("host", "host-a")
    async with AgentServer("127.0.0.1:0", files, services()) as server:
        before, key = pem(files), files.key.read_bytes()
        for spoil in (files.key.unlink, lambda: files.certificate.write_text("nonsense")):
            spoil()
            assert await asyncio.to_thread(shown, server.address, client) == before
        files.certificate.write_text(before)
        files.key.touch(mode=0o600)
        files.key.write_bytes(key)
        renew(site.folder, "host-b")
        assert await asyncio.to_thread(shown, server.address, client) == pem(files) != before


async def test_a_server_does_not_become_somebody_else(site: Site) -> None:
    files, client = site.issue("host", "host-b"), site.issue("host", "host-a")
    other = site.issue("host", "host-c")
    async with AgentServer("127.0.0.1:0", files, services()) as server:
        before = pem(files)
        other.key.replace(files.key)
        other.certificate.replace(files.certificate)
        assert await asyncio.to_thread(shown, server.address, client) == before


async def test_another_authority_beside_the_old_one_is_trusted_from_the_next_connection_on(
    site: Site, tmp_path: Path
) -> None:
    """How an authority is replaced: both are trusted, everybody is issued anew, the old one goes."""
    create_authority(tmp_path / "next", "home")
    stranger = issue(tmp_path / "next", Identity("home", Role.VIEWER, "vera"))
    both = tmp_path / "both.pem"
    both.write_bytes((site.folder / "ca.pem").read_bytes() + (tmp_path / "next" / "ca.pem").read_bytes())
    caller = TlsFiles(both, stranger.certificate, stranger.key)
    files = site.issue("host", "host-b")
    async with AgentServer("127.0.0.1:0", files, services()) as server:
        assert isinstance(await refusal(server.address, caller), Unreachable)
        both.replace(files.ca)
        both.write_bytes(files.ca.read_bytes())
        assert await check(server.address, caller) == "viaduct://home/viewer/vera"


def test_only_what_has_changed_is_read_again(site: Site) -> None:
    files = site.issue("host", "host-b")
    renewal = Renewal(files)
    assert renewal.renewed() is None
    os.utime(files.certificate)  # written again, with the same in it
    assert renewal.renewed() is None
    first = renewal.material
    renew(site.folder, "host-b")
    assert renewal.renewed() == renewal.material != first
    assert renewal.renewed() is None


def test_direct_streams_follow_the_files_too(site: Site) -> None:
    files = site.issue("host", "host-b")
    contexts = ServerContexts(files)
    first = contexts.context()
    assert contexts.context() is first
    renew(site.folder, "host-b")
    second = contexts.context()
    assert second is not first
    assert contexts.site == "home"
    files.certificate.unlink()
    assert contexts.context() is second


def test_a_key_that_others_could_read_is_taken_as_soon_as_they_cannot(site: Site) -> None:
    files = site.issue("host", "host-b")
    renewal, contexts = Renewal(files), ServerContexts(files)
    first, before = renewal.material, contexts.context()
    renew(site.folder, "host-b")
    files.key.chmod(0o644)
    assert renewal.renewed() is None
    assert contexts.context() is before
    files.key.chmod(0o600)
    assert renewal.renewed() == renewal.material != first
    assert contexts.context() is not before


class Passing:
    """A failure of this host's own, for as long as a test says so, and a clock that stands where it is put."""

    def __init__(self) -> None:
        self.fails, self.tried, self.now = True, 0, 100.0

    def clock(self) -> float:
        return self.now

    def met(self) -> None:
        self.tried += 1
        if self.fails:
            raise InvalidInput("tls-file", "It cannot be read: Too many open files", "")


def test_what_could_not_be_read_for_want_of_a_descriptor_is_read_again_after_a_pause(
    site: Site, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    files, reading, really = site.issue("host", "host-b"), Passing(), tls._read
    renewal = Renewal(files, reading.clock)
    renew(site.folder, "host-b")

    def read(path: Path) -> bytes:
        reading.met()
        return really(path)

    monkeypatch.setattr(tls, "_read", read)
    for _ in range(3):
        assert renewal.renewed() is None
    assert reading.tried == 1, "not at every connection"
    reading.now += AGAIN
    assert renewal.renewed() is None
    assert log.getvalue().count(NOT_RENEWED) == 1
    reading.fails = False
    assert renewal.renewed() is None
    reading.now += AGAIN
    assert renewal.renewed() == files.load()


def test_a_context_that_could_not_be_made_of_what_was_renewed_is_made_after_a_pause(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, making, really = site.issue("host", "host-b"), Passing(), direct_tls.server_context
    contexts = ServerContexts(files, clock=making.clock)
    before = contexts.context()
    renew(site.folder, "host-b")

    def made(files: TlsFiles, speaks: str) -> ssl.SSLContext:
        making.met()
        return really(files, speaks)

    monkeypatch.setattr(direct_tls, "server_context", made)
    assert contexts.context() is before
    making.fails = False
    assert contexts.context() is before
    making.now += AGAIN
    assert contexts.context() is not before
    assert making.tried == 2


@pytest.fixture
def log() -> io.StringIO:
    written = io.StringIO()
    logs.configure("test", stream=written)
    return written


@pytest.fixture
def renewing(site: Site) -> Iterator[TlsFiles]:
    """Files that somebody replaces over and over."""
    files, stop = site.issue("host", "host-b"), threading.Event()

    def work() -> None:
        while not stop.is_set():
            renew(site.folder, "host-b")

    thread = threading.Thread(target=work)
    thread.start()
    yield files
    stop.set()
    thread.join()


def test_whoever_reads_while_files_are_replaced_gets_a_pair_that_fits(renewing: TlsFiles) -> None:
    keys: set[bytes] = set()
    while len(keys) < 5:  # however long the disk takes for each
        keys.add(renewing.load().key)
    for _ in range(50):
        client_context(renewing)


def test_a_renewed_certificate_is_of_the_same_identity_and_addresses(site: Site) -> None:
    files = issue(site.folder, Identity("home", Role.HOST, "host-b"), ["10.0.0.1", "host-b.example.org"])
    before, key = inspect(files.certificate), files.key.read_bytes()
    renew(site.folder, "host-b")
    after = inspect(files.certificate)
    assert (after.identity, after.names) == (before.identity, before.names)
    assert after.sha256 != before.sha256
    assert files.key.read_bytes() != key
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in site.folder.iterdir()} == {"ca.pem", "ca.key", "host-b.pem", "host-b.key"}


@pytest.mark.parametrize("name", ["nobody", "ca"])
def test_what_is_no_certificate_of_an_identity_is_not_renewed(site: Site, name: str) -> None:
    before = {path: path.read_bytes() for path in site.folder.iterdir()}
    with pytest.raises(InvalidInput):
        renew(site.folder, name)
    assert {path: path.read_bytes() for path in site.folder.iterdir()} == before


def test_a_key_of_another_certificate_is_refused(site: Site) -> None:
    one, other = site.issue("host", "host-a"), site.issue("host", "host-b")
    with pytest.raises(InvalidInput) as caught:
        TlsFiles(one.ca, one.certificate, other.key).load()
    assert caught.value.code == "tls-pair"
