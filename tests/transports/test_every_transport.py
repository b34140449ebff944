"""What must hold of a bulk stream, whatever it travels over: real sockets on loopback, real certificates."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from dest_agent import answering
from source_agent import pulse
from source_agent.bulk_stream import BulkStream
from tests.fakes.cable import cable_to
from tests.fakes.far_end import PAGES, STREAMS, TICKET, FarEnd, an_end, far_end, random_pages
from vm_migration.errors import AttemptFailed, MigrationError, Refused, Unauthorised, Unreachable
from vm_migration.transfer.frames import Frame, Heartbeat, Place
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.frame import encode, encode_parts
from vmm.memory.dirty_bitmap import DirtyBitmap

LONG = 20.0


@pytest.fixture(params=["grpc", "direct", "sealed"])
async def far(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FarEnd]:
    async with far_end(tmp_path, request.param) as end:
        yield end
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("direct-stream")] == []


@pytest.fixture
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "STALL", 0.5)
    monkeypatch.setattr(answering, "PROGRESS_EVERY", 0.1)


async def refused(far: FarEnd, name: str = "host-a", ticket: bytes = TICKET, count: int = 1) -> MigrationError:
    """Return what somebody's streams come to who sends nothing."""
    with an_end() as ended:
        async with asyncio.timeout(LONG), far.streams(name, ticket, count):
            await asyncio.Event().wait()
    return ended[0]


async def refused_to_write(far: FarEnd, *parts: bytes | memoryview) -> MigrationError:
    """Return what a stream comes to that writes something."""
    with an_end() as ended:
        async with asyncio.timeout(LONG), far.streams() as (lane,):
            await lane.alive()
            await lane.bulk._carrier.write(parts)
            await asyncio.Event().wait()
    return ended[0]


@pytest.mark.parametrize(
    ("transport", "secured"),
    [("grpc", True), ("grpc", False), ("direct", True), ("direct", False), ("sealed", True)],
    ids=["grpc-tls", "grpc-plain", "direct-tls", "direct-plain", "sealed"],
)
@pytest.mark.parametrize("summed", [True, False], ids=["digest-summed", "summed"])
async def test_pages_arrive_as_they_were_over_several_streams(
    tmp_path: Path, transport: str, secured: bool, summed: bool
) -> None:
    pages = random_pages(PAGES)
    shares = [DirtyBitmap.full(PAGES), DirtyBitmap(PAGES)]
    for page in (*range(0, PAGES, 7), *range(400, 900)):
        shares[0].clear_run(page, 1)
        shares[1].set_run(page, 1)
    async with far_end(tmp_path, transport, secured=secured) as far, asyncio.timeout(LONG):
        async with far.streams(count=STREAMS) as lanes:
            parts = [
                lane.frames.round(0, pages, share, digested=True, digest_summed=summed)
                for lane, share in zip(lanes, shares, strict=True)
            ]
            left = await asyncio.gather(*(lane.send(part) for lane, part in zip(lanes, parts, strict=True)))
            assert min(left) == 0
            wire_bytes = sum(lane.bulk.wire_bytes for lane in lanes)
        assert np.array_equal(far.image, pages)
        assert far.arrival.stale_pages == 0
        assert wire_bytes > np.count_nonzero(pages.any(axis=1)) * 4096


async def test_a_stream_without_the_ticket_is_refused(far: FarEnd) -> None:
    for ticket in (bytes(32), TICKET[:-1], b""):
        error = await refused(far, ticket=ticket)
        assert (type(error), error.code) == (Unauthorised, "wrong-ticket")
    async with asyncio.timeout(LONG), far.streams() as (lane,):
        await lane.alive()


async def test_an_ordinal_comes_once_and_only_those_of_the_attempt(far: FarEnd) -> None:
    async with asyncio.timeout(LONG), far.streams() as (lane,):
        await lane.alive()
        error = await refused(far)
        assert (type(error), error.code) == (Unauthorised, "stream-taken")
        await lane.alive()
    assert (await refused(far)).code == "stream-taken"
    assert (await refused(far, count=STREAMS + 1)).code == "stream-taken"


async def test_only_the_source_of_the_attempt_is_let_in(far: FarEnd) -> None:
    assert (type(error := await refused(far, "host-c")), error.code) == (Unauthorised, "wrong-source")
    assert (type(error := await refused(far, "op")), error.code) == (Unauthorised, "role")
    async with asyncio.timeout(LONG), far.streams() as (lane,):
        await lane.alive()


async def test_a_certificate_of_another_authority_is_not_accepted(far: FarEnd) -> None:
    # What gRPC makes of it is UNAVAILABLE, by which name depends on which end says it first.
    assert isinstance(await refused(far, "stranger"), Unreachable)


async def test_an_attempt_that_is_not_arriving_takes_no_stream(far: FarEnd) -> None:
    with an_end() as ended:
        async with (
            asyncio.timeout(LONG),
            far.link(attempt=str(UUID(int=5))) as link,
            link.streams(TICKET, 1),
        ):
            await asyncio.Event().wait()
    (error,) = ended
    assert (type(error), error.code) == (Refused, "not-arriving")


async def test_a_frame_that_is_damaged_or_out_of_place_ends_the_stream(far: FarEnd) -> None:
    message = bytearray(encode(OutgoingStream(UUID(int=5), 0).heartbeat(0)))
    error = await refused_to_write(far, bytes(message))
    assert (type(error), error.code) == (AttemptFailed, "bad-frame")


async def test_a_damaged_frame_ends_the_stream(far: FarEnd) -> None:
    attempt = UUID(far.arrival.custody.record.attempt)
    message = bytearray(encode(Frame(Place(attempt, 0, 0, 1), Heartbeat())))
    message[60] ^= 1
    error = await refused_to_write(far, bytes(message))
    assert (type(error), error.code) == (AttemptFailed, "bad-frame")
    assert "checksum" in error.message


async def test_pages_that_are_not_their_digests_end_the_stream_and_nothing_holds_the_ram(far: FarEnd) -> None:
    attempt = UUID(far.arrival.custody.record.attempt)
    frames = OutgoingStream(attempt, 0)
    frames.heartbeat(0)
    frame = next(
        frames.round(0, random_pages(PAGES), DirtyBitmap.full(PAGES), digested=True, digest_summed=True).pages()
    )
    message = bytearray(encode(frame))
    message[-1] ^= 1
    error = await refused_to_write(far, bytes(message))
    assert (type(error), error.code) == (AttemptFailed, "bad-frame")
    assert "digest" in error.message
    assert far.arrival.stale_pages == PAGES


async def test_a_header_that_says_more_than_a_frame_may_have_ends_the_stream(far: FarEnd) -> None:
    attempt = UUID(far.arrival.custody.record.attempt)
    message = bytearray(encode(Frame(Place(attempt, 0, 0, 1), Heartbeat())))
    message[52:56] = b"\xff\xff\xff\xff"
    error = await refused_to_write(far, bytes(message))
    assert (type(error), error.code) == (AttemptFailed, "bad-frame")


async def test_what_the_source_is_told_survives_much_that_it_still_sends(far: FarEnd) -> None:
    """The refusal comes while frames are on their way: it must not be lost with the connection.

    With gRPC it may be: a write that meets the end before the status was read has grpc.aio make one up, for good.
    """
    codes = {"bad-frame", "stream-closed"} if far.transport == "grpc" else {"bad-frame"}
    pages = random_pages(PAGES)
    with an_end() as ended:
        async with asyncio.timeout(LONG), far.streams() as (lane,):
            part = lane.frames.round(1, pages, DirtyBitmap.full(PAGES))  # round 0 is open
            for frame in part.pages():
                await lane.bulk.send(frame)
            await asyncio.Event().wait()
    (error,) = ended
    assert type(error) is AttemptFailed
    assert error.code in codes


@pytest.mark.usefixtures("sooner")
@pytest.mark.parametrize("sending", [False, True], ids=["silent", "in-a-round"])
async def test_a_pulled_cable_is_noticed_though_nothing_is_closed(far: FarEnd, sending: bool) -> None:
    pages = random_pages(PAGES)
    async with cable_to(far.bulk) as cable:
        far.bulk = cable.address
        with an_end() as ended:
            async with asyncio.timeout(LONG), far.streams() as (lane,):
                await lane.alive()
                cable.pull()
                while sending:  # what is written is never read: in the end it is not taken either
                    await lane.send(OutgoingStream(UUID(int=0), 0).round(0, pages, DirtyBitmap.full(PAGES)))
                await asyncio.Event().wait()
        (error,) = ended
        assert (type(error), error.code) == (AttemptFailed, "stream-stalled")


async def test_a_destination_that_ends_ends_its_streams(far: FarEnd) -> None:
    with an_end() as ended:
        async with asyncio.timeout(LONG), far.streams() as (lane,):
            await lane.alive()
            far.arrival.let_go_of_ram()  # as at the attempt's end
            await asyncio.Event().wait()
    (error,) = ended
    assert (type(error), error.code) == (Refused, "not-arriving")


async def test_a_stream_that_is_closed_in_the_middle_of_a_frame_leaves_the_others(far: FarEnd) -> None:
    frame = next(OutgoingStream(UUID(int=0), 0).round(0, random_pages(PAGES), DirtyBitmap.full(PAGES)).pages())
    with contextlib.suppress(MigrationError, ExceptionGroup):  # it may be noticed while it is left
        async with asyncio.timeout(LONG), far.streams() as (lane,):
            await lane.alive()
            if far.transport != "grpc":
                await lane.bulk._carrier.write(encode_parts(frame)[:1])
                await lane.bulk._carrier.write((b"and a little",))  # returns when the header is on its way
            lane.bulk._carrier.cancel()
    async with asyncio.timeout(LONG), far.link() as link, link._carrier(TICKET, 1) as carrier:
        stream = BulkStream(carrier, "host-b")
        listening = asyncio.create_task(stream.listen())
        attempt = UUID(far.arrival.custody.record.attempt)
        await (await stream.ask(OutgoingStream(attempt, 1).heartbeat(0)))
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
