import struct
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64

from vm_migration.api.v1.bulk_pb2 import BulkFrame, PageCodec
from vm_migration.transfer.frames import (
    MAX_COMPRESSED_PAGES,
    MAX_PAYLOAD,
    MAX_ZERO_PAGES,
    Barrier,
    Body,
    Codec,
    CompressedPages,
    Device,
    Digests,
    Frame,
    Heartbeat,
    Pages,
    Place,
    Zeros,
)
from vm_migration.transfer.page_runs import Runs, runs_of
from vm_migration.wire.device_record import decode_record
from vm_migration.wire.errors import BadChecksum, FrameError, NotCanonical, Truncated, UnknownKind, UnknownVersion
from vm_migration.wire.frame import MAX_FRAME, decode, encode
from vm_migration.wire.frame_protobuf import from_message, to_message
from vmm.vfio.device_records import MAX_NAME_BYTES, MAX_RECORD_BYTES, DeviceRecord, RecordKind

ATTEMPT = UUID("6d0f4d3c-8a55-4f0e-9f19-0d4b87f7a1ce")

u32 = st.integers(0, 2**32 - 1)
places = st.builds(Place, st.uuids(), u32, u32, st.integers(0, 2**64 - 1))
page_sets = st.sets(st.integers(0, 40), min_size=1, max_size=12).flatmap(
    lambda pages: st.integers(0, 2**32 - 64).map(lambda base: sorted(page + base for page in pages))
)


def runs(pages: list[int]) -> Runs:
    return runs_of(np.array(pages, dtype=np.int64))


def digests(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def pages_body(pages: list[int], *, digested: bool) -> Pages:
    data = np.repeat(np.arange(len(pages), dtype=np.uint8), 4096).tobytes()
    return Pages(runs(pages), memoryview(data), digests(len(pages)) if digested else None)


def compressed_body(pages: list[int], data: bytes, codec: Codec, *, digested: bool) -> CompressedPages:
    return CompressedPages(runs(pages), codec, memoryview(data), digests(len(pages)) if digested else None)


@st.composite
def deltas(draw: st.DrawFn) -> Frame:
    place = Place(ATTEMPT, draw(st.integers(2, 2**32 - 1)), 0, 0)
    pages = draw(page_sets)
    body = compressed_body(pages, b"changes", draw(st.sampled_from(Codec)), digested=draw(st.booleans()))
    bases = st.lists(st.integers(1, place.round - 1), min_size=len(pages), max_size=len(pages))
    return Frame(place, replace(body, bases=np.array(draw(bases), dtype=np.uint32)))


def _encodes(name: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in name) and len(name.encode()) <= MAX_NAME_BYTES


bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(lambda pages, digested: pages_body(pages, digested=digested), page_sets, st.booleans()),
    st.builds(
        lambda pages, data, codec, digested: compressed_body(pages, data, codec, digested=digested),
        page_sets,
        st.binary(min_size=1, max_size=300),
        st.sampled_from(Codec),
        st.booleans(),
    ),
    st.builds(lambda pages, digested: Zeros(runs(pages), digested), page_sets, st.booleans()),
    st.builds(lambda pages: Digests(runs(pages), digests(len(pages))), page_sets),
    st.builds(Barrier, st.booleans()),
    st.just(Heartbeat()),
    st.builds(
        lambda name, data: Device(DeviceRecord(name, RecordKind.DATA, memoryview(data))),
        st.text(min_size=1, max_size=60).filter(_encodes),
        st.binary(min_size=1, max_size=5000),
    ),
    st.sampled_from([RecordKind.SETUP, RecordKind.INITIAL_SENT, RecordKind.END]).map(
        lambda kind: Device(DeviceRecord("0000:3a:00.1", kind))
    ),
)
frames = st.builds(Frame, places, bodies) | deltas()


def described(frame: Frame) -> tuple[object, ...]:
    body = frame.body
    parts: list[object] = [frame.place, type(body)]
    if isinstance(body, Pages | CompressedPages | Zeros | Digests):
        parts.append(body.runs.tolist())
    if isinstance(body, Pages | CompressedPages | Digests):
        parts.append(None if body.digests is None else body.digests.tolist())
    if isinstance(body, Pages | CompressedPages):
        parts.append(bytes(body.data))
    if isinstance(body, CompressedPages):
        parts.extend((body.codec, None if body.bases is None else body.bases.tolist()))
    if isinstance(body, Zeros):
        parts.append(body.digested)
    if isinstance(body, Device):
        parts.append((body.record.device, body.record.kind, bytes(body.record.data)))
    return tuple(parts)


@given(frames)
@settings(max_examples=60)
def test_a_frame_survives_the_wire_and_has_one_encoding(frame: Frame) -> None:
    message = encode(frame)
    read = decode(message)
    assert described(read) == described(frame)
    assert encode(read) == message


@given(frames)
@settings(max_examples=60)
def test_the_protobuf_twin_means_the_same(frame: Frame) -> None:
    assert described(from_message(to_message(frame))) == described(frame)


@given(frames, st.data())
@settings(max_examples=80)
def test_a_changed_or_cut_frame_is_refused(frame: Frame, data: st.DataObject) -> None:
    message = bytearray(encode(frame))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, min(len(message), 200) - 1) | st.integers(0, len(message) - 1))
        message[place] ^= data.draw(st.integers(1, 255))
    else:
        del message[data.draw(st.integers(0, len(message) - 1)) :]
    with pytest.raises(FrameError):
        decode(bytes(message))


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_arbitrary_bytes_are_refused_with_a_typed_error(message: bytes) -> None:
    with pytest.raises(FrameError):
        decode(message)


def test_page_data_are_a_view_into_the_message() -> None:
    message = encode(Frame(Place(ATTEMPT, 0, 0, 0), pages_body([1, 2, 7], digested=True)))
    body = decode(message).body
    assert isinstance(body, Pages)
    assert body.data.obj is message


def test_device_state_is_a_view_into_the_message() -> None:
    message = encode(Frame(place_zero(), Device(DeviceRecord("qat0", RecordKind.DATA, memoryview(b"state")))))
    body = decode(message).body
    assert isinstance(body, Device)
    assert body.record.data.obj is message


@pytest.mark.parametrize(
    "record",
    [
        DeviceRecord("qat0", RecordKind.DATA),
        DeviceRecord("qat0", RecordKind.END, memoryview(b"more")),
        DeviceRecord("", RecordKind.SETUP),
        DeviceRecord("qat0", RecordKind.DATA, memoryview(bytes(MAX_RECORD_BYTES + 1))),
        DeviceRecord("q" * (MAX_NAME_BYTES + 1), RecordKind.SETUP),
    ],
)
def test_a_record_that_no_device_gives_is_refused(record: DeviceRecord) -> None:
    with pytest.raises(NotCanonical):
        decode(encode(Frame(place_zero(), Device(record))))


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", Truncated),
        (b"\x03", Truncated),
        (b"\x03\x05qat0", Truncated),
        (b"\x00\x04qat0", UnknownKind),
        (b"\x02\x04qat0", UnknownKind),
        (b"\x03\x02\xff\xfe", NotCanonical),
        (b"\x03\x00", NotCanonical),
    ],
)
def test_a_payload_that_is_no_record_is_refused(payload: bytes, error: type[FrameError]) -> None:
    with pytest.raises(error):
        decode_record(memoryview(payload))


def test_a_record_of_the_largest_size_fits_into_a_frame() -> None:
    record = DeviceRecord("q" * MAX_NAME_BYTES, RecordKind.DATA, memoryview(bytes(MAX_RECORD_BYTES)))
    assert len(encode(Frame(place_zero(), Device(record)))) <= MAX_FRAME


def place_zero() -> Place:
    return Place(ATTEMPT, 0, 0, 0)


def table(*rows: tuple[int, int]) -> Runs:
    return np.array(rows, dtype=np.uint32).reshape(-1, 2)


@pytest.mark.parametrize(
    "body",
    [
        Zeros(table((4, 2), (6, 1)), digested=False),
        Zeros(table((6, 1), (4, 2)), digested=False),
        Zeros(table((4, 3), (5, 1)), digested=False),
        Zeros(table((4, 0)), digested=False),
        Zeros(table((4, 0), (6, 1)), digested=False),
        Zeros(table((2**32 - 1, 2)), digested=False),
        Zeros(table((0, MAX_ZERO_PAGES + 1)), digested=False),
        Digests(table((2**32 - 1, 2)), digests(2)),
        Digests(table((3, 1), (4, 1)), digests(2)),
    ],
)
def test_other_spellings_of_a_set_of_pages_are_refused(body: Body) -> None:
    with pytest.raises(NotCanonical):
        decode(encode(Frame(place_zero(), body)))


@pytest.mark.parametrize(
    "body",
    [
        Digests(table((0, 3)), digests(2)),
        Digests(table((0, 1), (2, 3)), digests(7)),
        Pages(table((0, 2)), memoryview(bytes(4096))),
        Pages(table((0, 1)), memoryview(bytes(4096 + 8))),
        Pages(table((0, 1)), memoryview(bytes(4096)), digests(2)),
    ],
)
def test_a_payload_of_another_length_is_refused(body: Body) -> None:
    with pytest.raises((Truncated, NotCanonical)):
        decode(encode(Frame(place_zero(), body)))


@pytest.mark.parametrize(
    "body",
    [
        CompressedPages(table((0, 1)), Codec.LZ4, memoryview(b"")),
        CompressedPages(table((0, 1)), Codec.LZ4, memoryview(bytes(4096))),
        CompressedPages(table((0, 1), (2, 1)), Codec.ZSTD, memoryview(bytes(8192)), digests(2)),
        CompressedPages(table((0, 2)), Codec.ZSTD, memoryview(b""), digests(2)),
        CompressedPages(table((0, 2)), Codec.ZSTD, memoryview(b"short"), digests(1)),
        CompressedPages(table((0, 1), (1, 1)), Codec.ZSTD, memoryview(b"touching")),
        CompressedPages(table((4, 1), (1, 1)), Codec.ZSTD, memoryview(b"backwards")),
        CompressedPages(table((4, 0), (6, 1)), Codec.ZSTD, memoryview(b"nothing")),
        CompressedPages(table((0, MAX_COMPRESSED_PAGES + 1)), Codec.ZSTD, memoryview(b"many")),
        CompressedPages(table((2**32 - 1, 2)), Codec.ZSTD, memoryview(b"past the end")),
        CompressedPages(table((0, 1), (2**32 - 1, 2)), Codec.ZSTD, memoryview(b"past the end")),
    ],
)
def test_compressed_pages_that_no_sender_writes_are_refused(body: CompressedPages) -> None:
    with pytest.raises((Truncated, NotCanonical)):
        decode(encode(Frame(place_zero(), body)))


def test_a_run_table_that_does_not_come_to_its_pages_is_refused() -> None:
    body = compressed_body([1, 3, 5], b"packed", Codec.LZ4, digested=False)
    for count in (2, 4, 200):
        message = bytearray(encode(Frame(place_zero(), body)))
        struct.pack_into("<I", message, 48, count)
        fields = bytes(message[:56])
        struct.pack_into("<Q", message, 56, xxh3_64(bytes(message[64:]), seed=xxh3_64(fields).intdigest()).intdigest())
        try:
            read = decode(bytes(message)).body
        except FrameError:
            continue
        assert isinstance(read, CompressedPages)  # the third run became data, which no codec reads
        assert read.runs.tolist() == [[1, 1], [3, 1]]


@pytest.mark.parametrize("base", [0, 5, 6, 2**32 - 1])
def test_a_delta_against_round_0_or_a_round_to_come_is_refused(base: int) -> None:
    body = compressed_body([1, 4], b"changes", Codec.LZ4, digested=True)
    for bases in ([1, base], [base, 1]):
        frame = Frame(Place(ATTEMPT, 5, 0, 0), replace(body, bases=np.array(bases, dtype=np.uint32)))
        with pytest.raises(NotCanonical):
            decode(encode(frame))


def no_codec(message: BulkFrame) -> None:
    message.pages.ClearField("codec")


def a_base_short(message: BulkFrame) -> None:
    message.pages.bases.pop()


def test_deltas_without_a_codec_or_with_a_base_short_are_refused() -> None:
    body = replace(compressed_body([1, 4], b"c", Codec.LZ4, digested=False), bases=np.array([1, 2], dtype=np.uint32))
    frame = Frame(Place(ATTEMPT, 5, 0, 0), body)
    message = bytearray(encode(frame))
    message[2] &= 0xFF - 8
    with pytest.raises(UnknownKind):
        decode(bytes(message))
    for spoil in (no_codec, a_base_short):
        twin = to_message(frame)
        spoil(twin)
        with pytest.raises(FrameError):
            from_message(twin)
    short = replace(body, bases=np.array([1], dtype=np.uint32), data=memoryview(b""))
    with pytest.raises((Truncated, NotCanonical)):
        decode(encode(Frame(frame.place, short)))


def test_a_frame_with_two_codecs_is_refused() -> None:
    message = bytearray(encode(Frame(place_zero(), compressed_body([1], b"packed", Codec.LZ4, digested=False))))
    message[2] |= 16
    with pytest.raises(UnknownKind):
        decode(bytes(message))


def test_a_twin_of_an_unknown_codec_is_refused() -> None:
    message = to_message(Frame(place_zero(), compressed_body([1], b"packed", Codec.LZ4, digested=False)))
    message.pages.codec = PageCodec.ValueType(7)
    with pytest.raises(UnknownKind):
        from_message(message)


def test_a_payload_over_the_limit_is_refused() -> None:
    body = Pages(table((0, 257)), memoryview(bytes(MAX_PAYLOAD + 4096)))
    message = encode(Frame(place_zero(), body))
    assert len(message) > MAX_FRAME
    with pytest.raises(Truncated):
        decode(message)


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [(0, 2, UnknownVersion), (0, 0, UnknownVersion), (1, 0, UnknownKind), (1, 7, UnknownKind), (2, 8, UnknownKind)],
)
def test_what_this_version_does_not_have_is_refused_by_name(place: int, value: int, error: type[FrameError]) -> None:
    message = bytearray(encode(Frame(place_zero(), Barrier())))
    message[place] = value
    with pytest.raises(error):
        decode(bytes(message))


def test_a_zeroed_message_means_nothing() -> None:
    for length in (56, 64, 128):
        with pytest.raises(FrameError):
            decode(bytes(length))


def test_the_header_is_covered_by_the_checksum() -> None:
    message = bytearray(encode(Frame(Place(ATTEMPT, 3, 1, 9), pages_body([5], digested=False))))
    message[4] ^= 1
    with pytest.raises(BadChecksum):
        decode(bytes(message))


def a_record_of_no_kind(message: BulkFrame) -> None:
    message.device.name = "qat0"


def without_body(message: BulkFrame) -> None:
    message.ClearField("pages")


def without_attempt(message: BulkFrame) -> None:
    message.place.ClearField("attempt")


def half_a_run(message: BulkFrame) -> None:
    message.pages.runs.pop()


def a_digest_short(message: BulkFrame) -> None:
    message.pages.digests.pop()


def without_runs(message: BulkFrame) -> None:
    message.pages.ClearField("runs")


def without_data(message: BulkFrame) -> None:
    message.pages.ClearField("data")


@pytest.mark.parametrize(
    "spoil",
    [a_record_of_no_kind, without_body, without_attempt, half_a_run, a_digest_short, without_runs, without_data],
)
def test_twins_that_no_raw_frame_says_are_refused(spoil: Callable[[BulkFrame], None]) -> None:
    message = to_message(Frame(place_zero(), pages_body([5, 9], digested=True)))
    spoil(message)
    with pytest.raises(FrameError):
        from_message(message)
