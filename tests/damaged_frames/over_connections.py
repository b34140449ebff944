"""Damaged frames over real connections: certificates, handshake, a stream of its own for each, and what it is told."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID

from dest_agent.incoming_attempt import IncomingAttempt
from source_agent.bulk_stream import Carrier, Unsent
from tests.damaged_frames.damage import damaged, on_a_byte_stream
from tests.damaged_frames.guest import PAYLOAD
from tests.damaged_frames.trying import REFUSED, Tally, kinds_of
from tests.dest_agent.arrivals import A
from tests.fakes.far_end import PAGES, TICKET, FarEnd, far_end, random_pages
from vm_migration.errors import MigrationError
from vm_migration.transfer.frames import AckKind
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.bitmap_codec import encode_bitmap
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

TRANSPORTS: Final = ("grpc", "direct", "sealed")
_STREAMS: Final = 16
"""Of one arrival: each ordinal is let in once."""
_MESSAGES: Final = 4
_LOST: Final = frozenset({"stream-closed"})
"""What gRPC may make of a refusal that comes while a frame is still being written."""


async def over_connections(folder: Path, transport: str, count: int, seed: int) -> Tally:
    """Try so many, each on a stream of its own of which the frames before it were right."""
    random, tally = Random(seed), Tally()  # noqa: S311 - chance that can be repeated
    async with far_end(folder, transport) as far:
        while tally.tried.total() < count:
            ram = RamBlock.create("viaduct-ram-damaged", PAGES * PAGE_SIZE)
            custody = far.arrival.custody
            far.arrival = IncomingAttempt(custody, ram, "host-a", TICKET, streams=_STREAMS, full=False)
            try:
                far.arrival.open_round(0, encode_bitmap(DirtyBitmap.full(PAGES)))
                for ordinal in range(min(_STREAMS, count - tally.tried.total())):
                    await _try(far, ordinal, random, tally)
            finally:
                far.arrival.let_go_of_ram()
            tally.note_memory(count)
    return tally


def _messages(ordinal: int, random: Random) -> list[bytes]:
    """Return what a stream would send of its share of the pages: the first few of it."""
    share = DirtyBitmap(PAGES)
    share.set_run(ordinal * (PAGES // _STREAMS), PAGES // _STREAMS)
    digested = random.random() < 0.5
    stream = OutgoingStream(UUID(A), ordinal, payload_bytes=PAYLOAD)
    part = stream.round(
        0, random_pages(PAGES), share, digested=digested, digest_summed=digested and random.random() < 0.5
    )
    return [encode(frame) for frame, _ in zip(part.pages(), range(_MESSAGES), strict=False)]


async def _try(far: FarEnd, ordinal: int, random: Random, tally: Tally) -> None:
    messages = _messages(ordinal, random)
    due = random.randrange(len(messages))
    kind = random.choice(kinds_of(messages, due))
    came = damaged(kind, messages, due, random)
    if far.transport != "grpc":
        came = on_a_byte_stream(came, messages[due])
    tally.tried[kind] += 1
    what = f"{kind} frame {due} of stream {ordinal} over {far.transport}: {came[:64].hex()}"
    async with far.link() as link, link._carrier(TICKET, ordinal) as carrier:
        try:
            await _written(carrier, (*messages[:due], came))
            while (answer := await carrier.read()) is not None and decode_ack(answer).kind is AckKind.PROGRESS:
                pass
            tally.accepted.append(f"{what}: answered")
        except MigrationError as error:
            if error.code not in {REFUSED, *(_LOST if far.transport == "grpc" else ())}:
                tally.crashed.append(f"{what}: {error!r}")
    if far.arrival.progress(ordinal).place.sequence != due:
        tally.accepted.append(f"{what}: it counts as taken, or what came before it does not")
    tally.right += due


async def _written(carrier: Carrier, messages: Sequence[bytes]) -> None:
    try:
        for message in messages:
            await carrier.write((message,))
    except Unsent:
        pass  # whoever reads knows why
