"""Real QEMUs that send and take a stream in by themselves, under TLS: who may come in, and what is left afterwards."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.vm_migration.machine.qemu.direct_pairs import HERE, credentials, directly
from tests.vm_migration.machine.qemu.hosts import SECONDS, lost, until
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.errors import MachineGone, MachineRefused
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.qemu.answers import Property
from vm_migration.machine.qemu.session import QmpSession
from vm_migration.machine.qemu.spawning import QMP_SOCKET
from vm_migration.machine.qemu.stream_tls import FOLDER
from vmm.process.own_stream import GATE, DirectTo, StreamTerms

MAGIC = b"QEVM\x00\x00\x00\x03"
"""How a stream of QEMU begins."""


@pytest.fixture(scope="module")
def host_a_of_another(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate with host-a's very subject, from an authority that is not the site's."""
    pki = tmp_path_factory.mktemp("another-pki")
    create_authority(pki, "test")
    return issue(pki, Identity("test", Role.HOST, "host-a"))


def client(files: TlsFiles | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return what somebody shakes hands with who does not mind to whom he speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, newest
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


def strangers(site: Mapping[str, TlsFiles], host_a_of_another: TlsFiles) -> Iterator[bytes | ssl.SSLContext]:
    """Yield what others come with: words in the clear, or a handshake, behind which they say how a stream begins."""
    yield b""
    yield b"GET / HTTP/1.1\r\n\r\n"
    yield MAGIC
    yield client(None)
    yield client(host_a_of_another)
    yield client(site["host-c"])
    yield client(site["host-b"])
    yield client(site["host-a"], ssl.TLSVersion.TLSv1_2)


def told_to(port: int, stranger: bytes | ssl.SSLContext) -> bytes:
    """Come to a port as somebody, and return what he is told under TLS before the other end hangs up."""
    with socket.create_connection((HERE, port), SECONDS) as plain, contextlib.suppress(ssl.SSLError, ConnectionError):
        plain.settimeout(SECONDS)
        if isinstance(stranger, ssl.SSLContext):
            with stranger.wrap_socket(plain) as connection:
                connection.sendall(MAGIC)
                return connection.recv(1)
        if stranger:  # else who comes goes at once
            plain.sendall(stranger)
            while plain.recv(1 << 10):
                continue
    return b""


def listened_at(port: int) -> bool:
    try:
        with socket.create_connection((HERE, port), 1.0):
            return True
    except ConnectionRefusedError:
        return False


async def objects_of(place: MachinePlace) -> set[str]:
    """Return the objects of a QEMU, for which nobody speaks any more afterwards: it has one client at a time."""
    await lost(place)
    session = QmpSession(place.path / QMP_SOCKET)
    await session.open()
    try:
        return {each.name for each in await session.ask("qom-list", tuple[Property, ...], {"path": "/objects"})}
    finally:
        await session.close()


async def left_of_tls(*places: MachinePlace) -> list[str]:
    """Return what is left of certificates beside machines and in their QEMUs."""
    folders = [str(path) for place in places for path in place.path.iterdir() if path.name == FOLDER]
    objects = [await objects_of(place) for place in places if place.alive()]
    return folders + [name for found in objects for name in found if name.startswith("viaduct-stream")]


@pytest.mark.parametrize(("version", "channels"), [("debian", 1), ("debian", 2), ("newer", 2)])
async def test_a_machine_goes_on_there_and_whoever_else_comes_to_its_port_does_not_come_in(
    identities: dict[str, TlsFiles], host_a_of_another: TlsFiles, programs: dict[str, str], version: str, channels: int
) -> None:
    terms = StreamTerms(channels=channels)
    async with directly(identities, programs[version]) as going:
        two, port = going.two, await going.listen(terms)
        for stranger in strangers(identities, host_a_of_another):
            assert await asyncio.to_thread(told_to, port, stranger) == b""
            state = await two.arriving.stream()
            assert (state.run_status, state.transferred) == ("inmigrate", 0)
        await going.connect(port, terms)
        gate = await until(two.leaving, GATE, "failed")
        assert gate.status == GATE, gate.error
        for stranger in strangers(identities, host_a_of_another):  # it listens on, and hangs up on whoever is too many
            assert await asyncio.to_thread(told_to, port, stranger) == b""
        stop = await two.through()
        assert not listened_at(port)
        assert (await two.leaving.stream()).run_status == "postmigrate"
        ours, theirs = await two.leaving.ram(), await two.arriving.ram()
        assert ours.data == theirs.data
        ours.close()
        theirs.close()
        await two.leaving.release(1)
        await two.taken_over(stop)
        assert await two.arriving.confirm_stopped() is None
        assert await left_of_tls(two.target) == []


@pytest.mark.parametrize(("who", "there"), [("host-c", "host-b"), ("host-a", "host-c")])
async def test_between_others_than_was_said_nothing_is_sent_and_the_machine_runs_on(
    identities: dict[str, TlsFiles], who: str, there: str
) -> None:
    """Host-c may not send; and host-b is not host-c, though the same authority says who it is."""
    async with directly(identities) as going:
        two = going.two
        await going.connect(await going.listen(StreamTerms()), StreamTerms(), who, there)
        ended = await until(two.leaving, "failed", GATE)
        assert ended.status == "failed"
        with contextlib.suppress(MachineGone):  # 7.2 ends where its source hangs up
            assert (await two.arriving.stream()).transferred == 0
        await two.leaving.run(1)
        assert await two.leaving.confirm_stopped() is None
        assert await left_of_tls(two.source) == []


async def test_what_was_set_up_for_a_direct_stream_is_not_in_the_way_of_one_that_is_carried(
    identities: dict[str, TlsFiles],
) -> None:
    async with directly(identities) as going:
        with socket.socket() as nobody:
            nobody.bind((HERE, 0))
            await going.connect(nobody.getsockname()[1], StreamTerms())
        assert (await until(going.two.leaving, "failed", GATE)).status == "failed"
        await going.two.to_gate()
        await going.two.leaving.run(1)


async def test_certificates_that_do_not_fit_are_refused_in_qemu_s_words_and_leave_nothing(
    identities: dict[str, TlsFiles],
) -> None:
    async with directly(identities) as going:
        wrong = replace(identities["host-a"], key=identities["host-c"].key)
        shown = credentials(wrong, wrong.ca)
        to = DirectTo(host=HERE, port=1, name="host-b", credentials=shown)
        with pytest.raises(MachineRefused, match="QEMU refuses object-add"):
            await going.two.leaving.start_direct_stream(to, StreamTerms())
        assert await left_of_tls(going.two.source, going.two.target) == []
