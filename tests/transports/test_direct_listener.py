"""A direct listener and those who mean it no good, or nothing: what waits is bounded, and ends by itself."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from dest_agent import answering, direct_listener
from dest_agent.direct_listener import DirectListener
from source_agent import direct_carrier as direct_carrier_module
from source_agent.direct_carrier import DirectCarrier, direct_carrier
from tests.dest_agent.arrivals import A
from tests.fakes.far_end import PAGES, TICKET, FarEnd, an_end, far_end, random_pages
from vm_migration.errors import InvalidInput, Refused, Unauthorised, Unreachable
from vm_migration.link.address import split_address
from vm_migration.link.direct_hello import HELLO_BYTES, Hello, decode_hello, encode_hello
from vm_migration.link.direct_tls import client_context
from vm_migration.link.direct_wire import DirectWire
from vm_migration.link.sealed_wire import SealedWire
from vm_migration.link.sealing import TAG_BYTES, Direction, Opener, Sealer, sealed_length
from vm_migration.link.tls import TlsFiles
from vm_migration.transfer.frames import AckKind, PagesToCome
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.ack import ACK_BYTES, decode_ack
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap

LONG = 20.0
HELLO = Hello(UUID(A), 0, TICKET)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[FarEnd]:
    async with far_end(tmp_path, "direct") as end:
        yield end
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("direct-stream")] == []


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[FarEnd]:
    async with far_end(tmp_path, "direct", secured=False) as end:
        yield end


async def ends(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the far end closes."""
    async with asyncio.timeout(LONG):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def let_in(far: FarEnd) -> None:
    """See that whoever has the right still is."""
    async with asyncio.timeout(LONG), far.streams() as (lane,):
        await lane.alive()


async def test_who_says_nothing_is_let_go(plain: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_listener, "HELLO_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
    assert await ends(reader) == b""
    writer.close()
    await let_in(plain)


async def test_who_says_half_a_hello_is_let_go(plain: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_listener, "HELLO_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
    writer.write(encode_hello(HELLO)[:-1])
    assert await ends(reader) == b""
    writer.close()
    await let_in(plain)


@pytest.mark.parametrize("first", [bytes(HELLO_BYTES), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(HELLO_BYTES)])
async def test_what_is_no_hello_is_not_answered(plain: FarEnd, first: bytes) -> None:
    reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
    writer.write(first)
    assert await ends(reader) == b""
    writer.close()
    await let_in(plain)


async def test_of_those_that_say_nothing_the_longest_waiting_makes_way(plain: FarEnd) -> None:
    plain.direct._silent.most = 2
    waiting = [await asyncio.open_connection(*split_address(plain.bulk)) for _ in range(2)]
    waiting.append(await asyncio.open_connection(*split_address(plain.bulk)))
    assert await ends(waiting[0][0]) == b""
    assert len(plain.direct._silent) == 2
    for _, each in waiting:
        each.close()
    await none_waits(plain)
    await let_in(plain)


async def test_those_that_say_nothing_take_no_place_of_those_that_speak(plain: FarEnd) -> None:
    plain.direct._speaking.most = 2
    silent = [await asyncio.open_connection(*split_address(plain.bulk)) for _ in range(5)]
    begun = [await asyncio.open_connection(*split_address(plain.bulk)) for _ in range(3)]
    for _, writer in begun:
        writer.write(encode_hello(HELLO)[:1])
        async with asyncio.timeout(LONG):
            while not len(plain.direct._speaking):  # noqa: ASYNC110 - a byte's coming has no event
                await asyncio.sleep(0.01)
    assert await ends(begun[0][0]) == b""
    assert (len(plain.direct._silent), len(plain.direct._speaking)) == (5, 2)
    for _, each in (*silent, *begun):
        each.close()
    await none_waits(plain)


async def none_waits(far: FarEnd) -> None:
    async with asyncio.timeout(LONG):
        while len(far.direct._silent) or len(far.direct._speaking):  # noqa: ASYNC110 - their end has no event
            await asyncio.sleep(0.01)


async def test_hundreds_that_say_nothing_keep_nobody_out(far: FarEnd) -> None:
    silent = [await asyncio.open_connection(*split_address(far.bulk)) for _ in range(200)]
    await let_in(far)
    for _, each in silent:
        each.close()


async def test_a_page_that_never_comes_whole_holds_no_ram_of_an_attempt_that_has_ended(
    plain: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "PROGRESS_EVERY", 0.1)
    begun, expect, loop = asyncio.Event(), plain.arrival.expect, asyncio.get_running_loop()

    def expecting(coming: PagesToCome, stream: int) -> list[memoryview]:
        loop.call_soon_threadsafe(begun.set)
        return expect(coming, stream)

    monkeypatch.setattr(plain.arrival, "expect", expecting)
    part = OutgoingStream(UUID(A), 0).round(
        0, random_pages(PAGES), DirtyBitmap.full(PAGES), digested=True, digest_summed=True
    )
    message = encode(next(part.pages()))
    reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
    writer.write(encode_hello(Hello(UUID(A), 0, TICKET, tells=False)) + message[:-1])
    async with asyncio.timeout(LONG):
        await begun.wait()
    plain.arrival.let_go_of_ram()
    assert b"not-arriving" in await ends(reader)
    writer.close()


async def test_how_long_a_destination_may_read_nothing_is_for_the_pulse_to_say(far: FarEnd) -> None:
    """By TCP_USER_TIMEOUT the kernel would end a connection whose peer lives and takes nothing for 20 s (tcp(7))."""
    async with asyncio.timeout(LONG), far.streams() as (lane,):
        carrier = lane.bulk._carrier
        assert isinstance(carrier, DirectCarrier)
        wire = carrier._threads.wire
        assert isinstance(wire, DirectWire)
        assert wire.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_a_stream_that_was_let_in_waits_no_longer(plain: FarEnd) -> None:
    plain.direct._silent.most = plain.direct._speaking.most = 1
    async with asyncio.timeout(LONG), plain.streams() as (lane,):
        await lane.alive()
        reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
        writer.write(bytes(HELLO_BYTES))
        assert await ends(reader) == b""
        writer.close()
        await lane.alive()


async def test_a_client_without_a_certificate_gets_no_further_than_the_handshake(far: FarEnd) -> None:
    context = ssl.create_default_context(cafile=str(far.identities["host-a"].ca))
    context.set_alpn_protocols(["viaduct-direct/1"])
    host, port = split_address(far.bulk)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="host-b")
    writer.write(encode_hello(HELLO))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        async with asyncio.timeout(LONG):
            await reader.read()
    writer.transport.abort()
    await let_in(far)


@pytest.mark.parametrize("sealed", [False, True], ids=["direct", "sealed"])
async def test_a_source_whose_certificate_is_not_accepted_is_told_so(far: FarEnd, sealed: bool) -> None:
    """Its own handshake is over by then, and its hello may meet a connection that is closed already."""
    own, stranger = far.identities["host-a"], far.identities["stranger"]
    files = TlsFiles(own.ca, stranger.certificate, stranger.key)
    hello = Hello(UUID(A), 0, TICKET, sealed=sealed)
    for _ in range(10):
        with pytest.raises(Unreachable) as refused:
            async with asyncio.timeout(LONG), direct_carrier(far.bulk, files, "host-b", hello, "host-b") as carrier:
                await carrier.read()
        assert refused.value.code == "tls"


async def test_older_tls_is_not_spoken(far: FarEnd) -> None:
    files = far.identities["host-a"]
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = split_address(far.bulk)
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await asyncio.open_connection(host, port, ssl=context, server_hostname="host-b")


async def test_a_host_of_another_name_is_not_taken_for_the_destination(far: FarEnd) -> None:
    with an_end() as ended:
        async with direct_carrier(far.bulk, far.identities["host-a"], "host-c", HELLO, "host-c"):
            raise AssertionError("It was taken")
    assert ended[0].code == "tls"


async def test_a_grpc_server_is_not_taken_for_a_direct_listener(far: FarEnd) -> None:
    far.bulk = far.control
    with an_end() as ended:
        await let_in(far)
    assert isinstance(ended[0], Unreachable | Unauthorised)


async def test_a_destination_that_offers_no_direct_streams_is_not_even_connected_to(far: FarEnd) -> None:
    far.features, far.bulk = (), "127.0.0.1:1"
    with an_end() as ended:
        await let_in(far)
    assert (type(ended[0]), ended[0].code) == (Refused, "transport-not-offered")


async def test_nobody_listening_is_told_as_such(far: FarEnd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        far.bulk = f"127.0.0.1:{taken.getsockname()[1]}"
        with an_end() as ended:
            await let_in(far)
    assert (type(ended[0]), ended[0].code) == (Unreachable, "unreachable")


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name be of these addresses."""

    async def found(_host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)


@pytest.mark.parametrize("first", ["127.0.0.2", "127.0.0.3"], ids=["nobody listens there", "nobody answers there"])
async def test_a_name_of_several_addresses_is_reached_at_the_first_that_answers(
    far: FarEnd, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_carrier_module, "STALL", 3.0)
    resolving(monkeypatch, first, "127.0.0.1")
    port = split_address(far.bulk)[1]
    with socket.create_server(("127.0.0.3", port), backlog=0), socket.socket() as fills:
        fills.connect(("127.0.0.3", port))  # the next one is not answered at all (listen(2), somaxconn)
        far.bulk = f"host-b.example.org:{port}"
        await let_in(far)


async def test_a_name_of_which_no_address_takes_a_connection_is_told_as_such(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "127.0.0.2", "127.0.0.4")
    far.bulk = f"host-b.example.org:{split_address(far.bulk)[1]}"
    with an_end() as ended:
        await let_in(far)
    assert (type(ended[0]), ended[0].code) == (Unreachable, "unreachable")


async def test_a_listener_that_is_closed_ends_its_streams(far: FarEnd) -> None:
    with an_end() as ended:
        async with asyncio.timeout(LONG), far.streams() as (lane,):
            await lane.alive()
            await far.direct.close()
            await asyncio.Event().wait()
    assert ended[0].code in {"stream-closed", "unreachable"}


async def test_plaintext_is_spoken_on_loopback_only(far: FarEnd) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await DirectListener(far, "192.0.2.1", None).address()
    assert refusal.value.code == "plaintext-refused"
    with pytest.raises(InvalidInput) as refusal:
        async with direct_carrier("192.0.2.1:7", None, "host-b", HELLO, "host-b"):
            raise AssertionError("It was connected to")
    assert refusal.value.code == "plaintext-refused"


async def test_a_secret_is_neither_told_nor_taken_in_plaintext(plain: FarEnd) -> None:
    sealed = Hello(UUID(A), 0, TICKET, sealed=True)
    with pytest.raises(InvalidInput) as refusal:
        async with direct_carrier(plain.bulk, None, "host-b", sealed, "host-b"):
            raise AssertionError("It was told")
    assert refusal.value.code == "sealed-without-tls"
    reader, writer = await asyncio.open_connection(*split_address(plain.bulk))
    writer.write(encode_hello(sealed) + bytes(32))
    assert await ends(reader) == b""
    writer.close()
    await let_in(plain)


async def test_a_record_of_a_sealed_stream_that_was_changed_ends_it(tmp_path: Path) -> None:
    async with far_end(tmp_path, "sealed") as far:
        with an_end() as ended:
            async with asyncio.timeout(LONG), far.streams() as (lane,):
                await lane.alive()
                carrier = lane.bulk._carrier
                assert isinstance(carrier, DirectCarrier)
                wire = carrier._threads.wire
                assert isinstance(wire, SealedWire)
                wire._bare.write((struct.pack("<I", 40) + bytes(40),))
                await asyncio.Event().wait()
        assert [error.code for error in ended] == ["bad-frame"]
        assert "sealed record" in ended[0].message


async def test_an_address_of_no_interface_is_refused(far: FarEnd) -> None:
    with pytest.raises(Refused) as refusal:
        await DirectListener(far, "192.0.2.1", far.identities["host-b"]).address()
    assert refusal.value.code == "direct-unavailable"


def test_a_hello_comes_back_as_it_was_and_nothing_else_is_one() -> None:
    for hello in (HELLO, Hello(UUID(A), 15, TICKET, tells=False), Hello(UUID(A), 1, TICKET, sealed=True)):
        assert decode_hello(encode_hello(hello)) == hello
    message = encode_hello(HELLO)
    for changed in (message[:-1], message + b"\0", b"X" + message[1:]):
        with pytest.raises(Unauthorised):
            decode_hello(changed)
    for place in (4, 5, 6, 28):  # version, flags, and both that are reserved
        wrong = bytearray(message)
        wrong[place] ^= 4
        with pytest.raises(Unauthorised):
            decode_hello(bytes(wrong))
    assert "ticket" not in repr(HELLO)


async def test_two_that_are_the_first_at_once_are_told_one_port(plain: FarEnd) -> None:
    listener = DirectListener(plain, "127.0.0.1", None)
    first, second = await asyncio.gather(listener.address(), listener.address())
    await listener.close()
    assert first == second


async def test_what_comes_below_tls_in_one_piece_with_its_last_record_is_not_lost(tmp_path: Path) -> None:
    secret, sealed = bytes(range(32)), Hello(UUID(A), 0, TICKET, sealed=True)
    async with far_end(tmp_path, "sealed") as far, asyncio.timeout(LONG):
        context = client_context(far.identities["host-a"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="host-b")
        reader, writer = await asyncio.open_connection(*split_address(far.bulk))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(1 << 16))
        tls.write(encode_hello(sealed) + secret)
        question = encode(OutgoingStream(UUID(A), 0).heartbeat(0))
        room = memoryview(bytearray(1000))
        writer.write(outgoing.read() + Sealer(secret, Direction.TO_DESTINATION).seal(question, room))
        opener, kinds = Opener(secret, Direction.TO_SOURCE), []
        while AckKind.HEARTBEAT not in kinds:
            length = await reader.readexactly(4)
            answer = bytearray(sealed_length(length, ACK_BYTES))
            opener.open(length, await reader.readexactly(ACK_BYTES + TAG_BYTES), memoryview(answer))
            kinds.append(decode_ack(bytes(answer)).kind)
        assert kinds[0] is AckKind.PROGRESS
        writer.close()
