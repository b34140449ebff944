"""Pages whose digests stand for them in the checksum: read as a whole, or head first and the data to their places."""

import struct
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.frames import Frame, Pages, PagesToCome, Place, Zeros
from vm_migration.transfer.page_runs import runs_of
from vm_migration.wire.errors import FrameError, UnknownKind
from vm_migration.wire.frame import HEADER_BYTES, decode, decode_head, encode, encode_parts, head_length, payload_length
from vm_migration.wire.frame_protobuf import from_message, to_message

ATTEMPT = UUID("6d0f4d3c-8a55-4f0e-9f19-0d4b87f7a1ce")
page_sets = st.sets(st.integers(0, 40), min_size=1, max_size=12).flatmap(
    lambda pages: st.integers(0, 2**32 - 64).map(lambda base: sorted(page + base for page in pages))
)
FLAGS_AT = 2


def summed(pages: list[int]) -> Frame:
    rows = np.arange(len(pages) * 512, dtype=np.uint64).reshape(-1, 512)
    digests = np.array([xxhash.xxh3_64_intdigest(row.data) for row in rows], dtype=np.uint64)
    body = Pages(runs_of(np.array(pages, dtype=np.int64)), rows.data.cast("B"), digests, digest_summed=True)
    return Frame(Place(ATTEMPT, 3, 1, 9), body)


def resealed(message: bytes, pages: int) -> bytes:
    """Return a message with the checksum that its first 56 bytes and its tables ask for."""
    seed = xxhash.xxh3_64_intdigest(message[:56])
    tables = message[HEADER_BYTES : len(message) - pages * 4096]
    return message[:56] + struct.pack("<Q", xxhash.xxh3_64_intdigest(tables, seed=seed)) + message[HEADER_BYTES:]


def by_head(message: memoryview) -> PagesToCome:
    """Read a head as a stream does."""
    payload_length(message)
    length = head_length(message)
    if length is None:
        raise UnknownKind("Another frame by now")
    return decode_head(message[:length])


@given(page_sets)
@settings(max_examples=60)
def test_its_head_says_all_but_the_data(pages: list[int]) -> None:
    frame = summed(pages)
    message = memoryview(encode(frame))
    length = head_length(message[:HEADER_BYTES])
    assert length is not None
    assert length + 4096 * len(pages) == len(message) == HEADER_BYTES + payload_length(message)
    head, whole = decode_head(message[:length]), decode(message)
    assert isinstance(whole.body, Pages)
    assert isinstance(frame.body, Pages)
    assert whole.body.digest_summed
    assert head.place == whole.place == frame.place
    assert head.runs.tolist() == whole.body.runs.tolist() == frame.body.runs.tolist()
    assert whole.body.digests is not None
    assert head.digests.tolist() == whole.body.digests.tolist()
    assert encode(whole) == message
    again = from_message(to_message(frame))
    assert encode(again) == message


@given(page_sets, st.data())
@settings(max_examples=100)
def test_a_changed_or_cut_head_is_refused_either_way(pages: list[int], data: st.DataObject) -> None:
    message = bytearray(encode(summed(pages)))
    length = len(message) - 4096 * len(pages)
    place = data.draw(st.integers(0, length - 1))
    message[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        decode(bytes(message))
    with pytest.raises(FrameError):
        by_head(memoryview(message))


@given(page_sets, st.integers(1, 4095))
def test_what_the_checksum_leaves_out_is_told_by_the_digests(pages: list[int], place: int) -> None:
    message = bytearray(encode(summed(pages)))
    message[-place] ^= 1
    body = decode(bytes(message)).body
    assert isinstance(body, Pages)
    assert body.digests is not None
    last = body.data[-4096:]
    assert xxhash.xxh3_64_intdigest(last) != int(body.digests[-1])


@pytest.mark.parametrize("flags", [64, 65, 64 | 2 | 8, 64 | 2 | 16, 64 | 2 | 8 | 32, 64 | 128 | 2])
def test_it_has_digests_and_no_codec(flags: int) -> None:
    message = bytearray(encode(summed([4])))
    struct.pack_into("<H", message, FLAGS_AT, flags)
    with pytest.raises(UnknownKind):
        decode(resealed(bytes(message), 1))


@pytest.mark.parametrize("count", [0, 2, 3, 200, 2**32 - 1])
def test_a_head_whose_count_is_not_its_payload_s_is_refused(count: int) -> None:
    message = bytearray(encode(summed([4])))
    struct.pack_into("<I", message, 48, count)
    length = head_length(memoryview(message))
    assert length is not None
    assert length <= len(message)
    head = bytes(message[:length])
    seed = xxhash.xxh3_64_intdigest(head[:56])
    sealed = head[:56] + struct.pack("<Q", xxhash.xxh3_64_intdigest(head[64:], seed=seed)) + head[64:]
    with pytest.raises(FrameError):
        decode_head(memoryview(sealed))


def test_other_frames_have_no_such_head() -> None:
    frame = summed([4, 5, 9])
    assert isinstance(frame.body, Pages)
    for other in (replace(frame.body, digest_summed=False), Zeros(frame.body.runs, digested=True)):
        assert head_length(encode_parts(replace(frame, body=other))[0]) is None
