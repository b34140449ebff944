"""The protobuf twin of bulk frames and answers, for peers in other languages.

A twin is read by way of the raw form: `from_message` writes what it was given as a raw frame and decodes that, so that
both forms are held to the same rules by the same code.
"""

import struct
from typing import Final
from uuid import UUID

import numpy as np

from vm_migration.api.v1 import bulk_pb2
from vm_migration.transfer.frames import (
    Ack,
    AckKind,
    Barrier,
    Body,
    Codec,
    CompressedPages,
    Device,
    DigestArray,
    Digests,
    Frame,
    Heartbeat,
    Pages,
    Place,
    RoundArray,
    Zeros,
)
from vm_migration.transfer.page_runs import Runs, page_count
from vm_migration.wire.errors import FrameError, NotCanonical, Truncated, UnknownKind
from vm_migration.wire.frame import decode, encode
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.device_records import DeviceRecord, RecordKind

_ACK_KINDS: Final = {
    bulk_pb2.BULK_ACK_KIND_BARRIER: AckKind.BARRIER,
    bulk_pb2.BULK_ACK_KIND_HEARTBEAT: AckKind.HEARTBEAT,
    bulk_pb2.BULK_ACK_KIND_PROGRESS: AckKind.PROGRESS,
}
_ACK_KIND_NUMBERS: Final = {kind: number for number, kind in _ACK_KINDS.items()}

_CODECS: Final = {bulk_pb2.PAGE_CODEC_LZ4: Codec.LZ4, bulk_pb2.PAGE_CODEC_ZSTD: Codec.ZSTD}
_CODEC_NUMBERS: Final = {codec: number for number, codec in _CODECS.items()}

_RECORD_KINDS: Final = {
    RecordKind.END: bulk_pb2.DEVICE_RECORD_KIND_END,
    RecordKind.SETUP: bulk_pb2.DEVICE_RECORD_KIND_SETUP,
    RecordKind.DATA: bulk_pb2.DEVICE_RECORD_KIND_DATA,
    RecordKind.INITIAL_SENT: bulk_pb2.DEVICE_RECORD_KIND_INITIAL_SENT,
}


def to_message(frame: Frame) -> bulk_pb2.BulkFrame:
    """Return a frame's twin."""
    message = bulk_pb2.BulkFrame(place=_place_message(frame.place))
    match frame.body:
        case Pages() as body:
            message.pages.runs.extend(body.runs.reshape(-1).tolist())
            message.pages.digests.extend([] if body.digests is None else body.digests.tolist())
            message.pages.data = bytes(body.data)
            message.pages.digest_summed = body.digest_summed
        case CompressedPages() as body:
            message.pages.runs.extend(body.runs.reshape(-1).tolist())
            message.pages.digests.extend([] if body.digests is None else body.digests.tolist())
            message.pages.data = bytes(body.data)
            message.pages.codec = _CODEC_NUMBERS[body.codec]
            message.pages.bases.extend([] if body.bases is None else body.bases.tolist())
        case Zeros() as body:
            message.zeros.runs.extend(body.runs.reshape(-1).tolist())
            message.zeros.digested = body.digested
        case Digests() as body:
            message.digests.runs.extend(body.runs.reshape(-1).tolist())
            message.digests.digests.extend(body.digests.tolist())
        case Device(record):
            message.device.name = record.device
            message.device.kind = _RECORD_KINDS[record.kind]
            message.device.data = bytes(record.data)
        case Barrier(cut):
            message.barrier.SetInParent()
            message.barrier.cut = cut
        case Heartbeat():
            message.heartbeat.SetInParent()
    return message


def from_message(message: bulk_pb2.BulkFrame) -> Frame:
    """Return the frame of a twin.

    Raises:
        FrameError: No raw frame says this.
    """
    frame = Frame(_place(message.place), _body(message))
    try:
        return decode(encode(frame))
    except struct.error as error:
        raise NotCanonical(f"Frame has a field that does not fit: {error}") from error


def to_ack_message(ack: Ack) -> bulk_pb2.BulkAck:
    """Return an answer's twin."""
    kind = _ACK_KIND_NUMBERS[ack.kind]
    return bulk_pb2.BulkAck(place=_place_message(ack.place), kind=kind, stale_pages=ack.stale_pages)


def from_ack_message(message: bulk_pb2.BulkAck) -> Ack:
    """Return the answer of a twin.

    Raises:
        FrameError: The kind is unknown, or the attempt is no UUID.
    """
    kind = _ACK_KINDS.get(message.kind)
    if kind is None:
        raise UnknownKind(f"Answer of kind {message.kind}")
    return Ack(_place(message.place), kind, message.stale_pages)


def _body(message: bulk_pb2.BulkFrame) -> Body:
    match message.WhichOneof("body"):
        case "pages":
            return _pages(message.pages)
        case "zeros":
            return Zeros(_runs(list(message.zeros.runs)), message.zeros.digested)
        case "digests":
            return Digests(_runs(list(message.digests.runs)), _digests(list(message.digests.digests)))
        case "device":
            return Device(_record(message.device))
        case "barrier":
            return Barrier(message.barrier.cut)
        case "heartbeat":
            return Heartbeat()
        case _:
            raise UnknownKind("Frame without a body")


def _record(message: bulk_pb2.DeviceRecord) -> DeviceRecord:
    for kind, number in _RECORD_KINDS.items():
        if number == message.kind:
            return DeviceRecord(message.name, kind, memoryview(message.data))
    raise UnknownKind(f"Record of kind {message.kind}")


def _pages(message: bulk_pb2.PageContents) -> Pages | CompressedPages:
    runs = _runs(list(message.runs))
    digests = _digests(list(message.digests)) if message.digests else None
    count = page_count(runs)
    if digests is not None and len(digests) != count:
        raise Truncated(f"Frame of {count} pages has {len(digests)} digests")
    if message.codec != bulk_pb2.PAGE_CODEC_UNSPECIFIED:
        if message.digest_summed:
            raise UnknownKind("Compressed pages that are digest-summed")
        return CompressedPages(runs, _codec(message), memoryview(message.data), digests, _bases(message, count))
    if message.bases:
        raise UnknownKind("Deltas that are not compressed")
    if len(message.data) != count * PAGE_SIZE:
        raise Truncated(f"Frame of {count} pages has {len(message.data)} bytes of them")
    if message.digest_summed and digests is None:
        raise UnknownKind("Digest-summed pages without digests")
    return Pages(runs, memoryview(message.data), digests, message.digest_summed)


def _bases(message: bulk_pb2.PageContents, count: int) -> RoundArray | None:
    if not message.bases:
        return None
    if len(message.bases) != count:
        raise Truncated(f"Frame of {count} pages has {len(message.bases)} bases")
    return np.array(list(message.bases), dtype="<u4")


def _codec(message: bulk_pb2.PageContents) -> Codec:
    codec = _CODECS.get(message.codec)
    if codec is None:
        raise UnknownKind(f"Page data of codec {message.codec}")
    return codec


def _runs(flat: list[int]) -> Runs:
    if len(flat) % 2 or not flat:
        raise FrameError(f"Runs of {len(flat)} numbers are not pairs of first page and count")
    return np.array(flat, dtype="<u4").reshape(-1, 2)


def _digests(values: list[int]) -> DigestArray:
    return np.array(values, dtype="<u8")


def _place(message: bulk_pb2.BulkPlace) -> Place:
    if len(message.attempt) != 16:
        raise FrameError(f"Attempt of {len(message.attempt)} bytes is no UUID")
    return Place(UUID(bytes=message.attempt), message.round, message.stream, message.sequence)


def _place_message(place: Place) -> bulk_pb2.BulkPlace:
    return bulk_pb2.BulkPlace(
        attempt=place.attempt.bytes, round=place.round, stream=place.stream, sequence=place.sequence
    )
