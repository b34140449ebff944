"""A bulk frame as bytes: 64 bytes of little-endian header, then payload.

::

    0        1      2        4         8                      24         28         32
    +--------+------+--------+---------+----------------------+----------+----------+
    |version | kind | flags  |  round  |       attempt        |  stream  |RAM block |
    +--------+------+--------+---------+----------------------+----------+----------+
    |     sequence       |     first page     |  count  | payload |     checksum     |
    +--------------------+--------------------+---------+---------+------------------+
    32                   40                   48        52        56                 64

    payload:  [run table, count of pages in runs][digest table][base table][page data]
              or, of a DEVICE frame: [record kind, length of name, name][data]

docs/protocol/frames.md says what each field may hold. One meaning has one encoding: what `decode` accepts, `encode`
writes in the same bytes. The checksum is xxh3-64 of the payload, seeded by xxh3-64 of the 56 bytes before it, so that
it covers both. Of a digest-summed frame it leaves the page data out: the digests, which it covers, are theirs.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final
from uuid import UUID

import numpy as np
import xxhash

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
    PagesToCome,
    Place,
    Zeros,
)
from vm_migration.transfer.page_runs import NO_RUNS, Runs, are_canonical, page_count
from vm_migration.wire.device_record import decode_record, encode_record
from vm_migration.wire.errors import BadChecksum, NotCanonical, Truncated, UnknownKind, UnknownVersion
from vmm.memory.quantities import PAGE_SIZE

VERSION: Final = 1
HEADER_BYTES: Final = 64
MAX_FRAME: Final = HEADER_BYTES + MAX_PAYLOAD
"""The longest message, for a transport's limit."""

_FIELDS: Final = struct.Struct("<BBHI16sIIQQII")
_CHECKSUM: Final = struct.Struct("<Q")
_RUN_BYTES: Final = 8
_DIGEST_BYTES: Final = 8
_BASE_BYTES: Final = 4
_PAGE_LIMIT: Final = 1 << 32


class Kind(IntEnum):
    """What a frame is; 0 is none, so that a zeroed message means nothing."""

    PAGES = 1
    ZEROS = 2
    DIGESTS = 3
    BARRIER = 4
    HEARTBEAT = 5
    DEVICE = 6


class Flag(IntFlag):
    """What a frame has beside the least of its kind."""

    RUNS = 1
    """A run table begins the payload, because one run does not name the pages."""
    DIGESTED = 2
    """A page's digest is stated: by a table before the data, or as that of a zero page."""
    CUT = 4
    """Pages that the round announced come in a later one."""
    LZ4 = 8
    """The page data are one LZ4 block, shorter than they."""
    ZSTD = 16
    """The page data are one Zstandard frame, shorter than they."""
    DELTA = 32
    """The page data are exclusive ors with what came in the rounds that a table names; compressed always."""
    DIGEST_SUMMED = 64
    """The checksum leaves the page data to their digests."""


_ALLOWED_FLAGS: Final = {
    Kind.PAGES: (*range(4), *range(8, 12), *range(16, 20), *range(40, 44), *range(48, 52), 66, 67),
    Kind.ZEROS: (1, 3),
    Kind.DIGESTS: (0, 1),
    Kind.BARRIER: (0, 4),
    Kind.HEARTBEAT: (0,),
    Kind.DEVICE: (0,),
}
_CODEC_FLAGS: Final = {Codec.LZ4: int(Flag.LZ4), Codec.ZSTD: int(Flag.ZSTD)}
# As plain numbers for every frame: a test of an IntFlag takes a microsecond.
_RUNS: Final = int(Flag.RUNS)
_DIGESTED: Final = int(Flag.DIGESTED)
_CUT: Final = int(Flag.CUT)
_DELTA: Final = int(Flag.DELTA)
_DIGEST_SUMMED: Final = int(Flag.DIGEST_SUMMED)


def encode(frame: Frame) -> bytes:
    """Return a frame as one message; its contents are copied once."""
    return b"".join(encode_parts(frame))


def encode_parts(frame: Frame) -> list[bytes | memoryview]:
    """Return a frame's message in parts: its header, its tables, and its contents, which are not copied."""
    kind, flags, runs, parts = _parts(frame.body)
    table = kind is Kind.ZEROS or len(runs) > 1
    payload = [runs.data.cast("B"), *parts] if table else parts
    flags |= _RUNS if table else 0
    first = int(runs[0, 0]) if len(runs) else 0
    length = sum(map(len, payload))
    place = frame.place
    fields = _FIELDS.pack(
        VERSION,
        kind,
        flags,
        place.round,
        place.attempt.bytes,
        place.stream,
        0,
        place.sequence,
        first,
        page_count(runs),
        length,
    )
    summed = payload[:-1] if flags & _DIGEST_SUMMED else payload
    return [fields + _CHECKSUM.pack(_checksum(fields, *summed)), *payload]


def payload_length(header: bytes | memoryview) -> int:
    """Return how many bytes follow a header, before any of them has come.

    Raises:
        UnknownVersion: The header is of another version, or of none.
        Truncated: It says more than a frame may have.
    """
    fields = _FIELDS.unpack_from(header)
    version, length = fields[0], fields[-1]
    if version != VERSION:
        raise UnknownVersion(f"Frame of version {version}; this program speaks {VERSION}")
    if length > MAX_PAYLOAD:
        raise Truncated(f"Frame says {length} bytes of payload, over {MAX_PAYLOAD}")
    return int(length)


def head_length(header: bytes | memoryview) -> int | None:
    """Return how many bytes of a digest-summed frame come before its page data; None of any other frame.

    The header is one whose `payload_length` was asked for; `decode_head` checks the rest of it.
    """
    _, kind, flags, *_, count, length = _FIELDS.unpack_from(header)
    if kind != Kind.PAGES or not flags & _DIGEST_SUMMED:
        return None
    return HEADER_BYTES + max(0, int(length) - int(count) * PAGE_SIZE)


def decode_head(head: memoryview) -> PagesToCome:
    """Return what `head_length` bytes of a digest-summed frame say of the data that follow.

    Raises:
        FrameError: They are not exactly what `encode` writes before the data of some frame.
    """
    header = _header(head, _FIELDS.unpack_from(head)[-1])
    runs, rest = _split_runs(header, head[HEADER_BYTES:], header.count * PAGE_SIZE)
    return PagesToCome(header.place, runs, np.frombuffer(rest, dtype="<u8"))


def decode(message: bytes | memoryview) -> Frame:
    """Return the frame of a message; page data and tables are views into it, not copies.

    Raises:
        FrameError: The message is not exactly what `encode` writes for some frame.
    """
    view = memoryview(message)
    header = _header(view, len(view) - HEADER_BYTES)
    payload = view[HEADER_BYTES:]
    if header.kind in (Kind.BARRIER, Kind.HEARTBEAT, Kind.DEVICE):
        if header.first or header.count or (payload and header.kind is not Kind.DEVICE):
            raise NotCanonical(f"{header.kind.name} frame names pages")
        return Frame(header.place, _pageless(header, payload))
    runs, rest = _split_runs(header, payload, 0)
    return Frame(header.place, _body(header, runs, rest))


@dataclass(frozen=True, slots=True)
class _Header:
    kind: Kind
    flags: int
    place: Place
    first: int
    count: int

    @property
    def digested(self) -> bool:
        return bool(self.flags & _DIGESTED)

    @property
    def codec(self) -> Codec | None:
        return next((codec for codec, flag in _CODEC_FLAGS.items() if self.flags & flag), None)

    @property
    def page_bytes(self) -> int:
        """How many bytes of payload go with each page, beside the run table and what is compressed."""
        match self.kind:
            case Kind.PAGES:
                return (0 if self.codec else PAGE_SIZE) + (_DIGEST_BYTES if self.digested else 0)
            case Kind.DIGESTS:
                return _DIGEST_BYTES
            case _:
                return 0


def _header(view: memoryview, came: int) -> _Header:
    """Return what a header says, once its fields and the checksum are known to be right; `came`: bytes of payload."""
    if not HEADER_BYTES <= len(view) <= MAX_FRAME:
        raise Truncated(f"Frame of {len(view)} bytes is not within {HEADER_BYTES} and {MAX_FRAME}")
    fields = view[: HEADER_BYTES - _CHECKSUM.size]
    version, kind, flags, number, attempt, stream, block, sequence, first, count, length = _FIELDS.unpack(fields)
    if version != VERSION:
        raise UnknownVersion(f"Frame of version {version}; this program speaks {VERSION}")
    if length != came or length > MAX_PAYLOAD:
        raise Truncated(f"Frame has {came} bytes of payload, and says {length}")
    if kind not in _ALLOWED_FLAGS:
        raise UnknownKind(f"Frame of kind {kind}")
    if flags not in _ALLOWED_FLAGS[Kind(kind)]:
        raise UnknownKind(f"{Kind(kind).name} frame with flags {flags}")
    if block:
        raise UnknownKind(f"Frame of RAM block {block}; there is one, number 0")
    summed = view[HEADER_BYTES : HEADER_BYTES + length - count * PAGE_SIZE if flags & _DIGEST_SUMMED else None]
    if _CHECKSUM.unpack_from(view, len(fields))[0] != _checksum(fields, summed):
        raise BadChecksum(f"{Kind(kind).name} frame {sequence} on stream {stream} does not have its checksum")
    return _Header(Kind(kind), flags, Place(UUID(bytes=attempt), number, stream, sequence), first, count)


def _split_runs(header: _Header, payload: memoryview, to_come: int) -> tuple[Runs, memoryview]:
    """Return the runs of a frame, and the payload after their table; `to_come` bytes of payload are not there yet."""
    name, first, count = header.kind.name, header.first, header.count
    if header.codec and count > MAX_COMPRESSED_PAGES:
        raise NotCanonical(f"{name} frame of {count} compressed pages; {MAX_COMPRESSED_PAGES} are allowed")
    table = _table_bytes(header, payload, len(payload) + to_come)
    if not header.flags & _RUNS:
        if table:
            raise Truncated(f"{name} frame of {count} pages cannot have {len(payload)} bytes of payload")
        if count == 0 or first + count > _PAGE_LIMIT:
            raise NotCanonical(f"{name} frame of {count} pages from page {first}")
        return np.array([(first, count)], dtype=np.uint32), payload
    if table <= 0 or table % _RUN_BYTES:
        raise Truncated(f"{name} frame of {count} pages cannot have {len(payload)} bytes of payload")
    runs: Runs = np.frombuffer(payload[:table], dtype="<u4").reshape(-1, 2)
    if (len(runs) == 1 and header.kind is not Kind.ZEROS) or not are_canonical(runs):
        raise NotCanonical(f"{name} frame's runs are not ascending and maximal, or need no table")
    if first != int(runs[0, 0]) or count != page_count(runs) or int(runs[-1].sum(dtype=np.uint64)) > _PAGE_LIMIT:
        raise NotCanonical(f"{name} frame of {count} pages from page {first} has other runs")
    if header.kind is Kind.ZEROS and count > MAX_ZERO_PAGES:
        raise NotCanonical(f"{name} frame of {count} pages; {MAX_ZERO_PAGES} are allowed")
    return runs, payload[table:]


def _table_bytes(header: _Header, payload: memoryview, length: int) -> int:
    """Return how long a frame's run table must be: what its pages leave, or as many rows as come to them."""
    if header.codec is None:
        return length - header.count * header.page_bytes
    if not header.flags & _RUNS:
        return 0
    rows = min(len(payload) // _RUN_BYTES, header.count)
    counts: Runs = np.frombuffer(payload[: rows * _RUN_BYTES], dtype="<u4").reshape(-1, 2)[:, 1]
    up_to = np.cumsum(counts, dtype=np.uint64)
    return (int(np.searchsorted(up_to, header.count)) + 1) * _RUN_BYTES if rows and up_to[-1] >= header.count else 0


def _body(header: _Header, runs: Runs, rest: memoryview) -> Body:
    if header.kind is Kind.ZEROS:
        return Zeros(runs, header.digested)
    if header.kind is Kind.DIGESTS:
        return Digests(runs, np.frombuffer(rest, dtype="<u8"))
    table = header.count * _DIGEST_BYTES if header.digested else 0
    if header.codec is None:
        stated = np.frombuffer(rest[:table], dtype="<u8") if header.digested else None
        return Pages(runs, rest[table:], stated, bool(header.flags & _DIGEST_SUMMED))
    tables = table + (header.count * _BASE_BYTES if header.flags & _DELTA else 0)
    if not 0 < len(rest) - tables < header.count * PAGE_SIZE:
        raise NotCanonical(f"PAGES frame of {header.count} pages has {len(rest) - tables} bytes of compressed data")
    digests = np.frombuffer(rest[:table], dtype="<u8") if header.digested else None
    bases = np.frombuffer(rest[table:tables], dtype="<u4") if header.flags & _DELTA else None
    if bases is not None and not (bases.min() > 0 and bases.max() < header.place.round):
        raise NotCanonical(f"Deltas of round {header.place.round} against rounds {bases.min()} to {bases.max()}")
    return CompressedPages(runs, header.codec, rest[tables:], digests, bases)


def _pageless(header: _Header, payload: memoryview) -> Body:
    if header.kind is Kind.DEVICE:
        return Device(decode_record(payload))
    return Barrier(bool(header.flags & _CUT)) if header.kind is Kind.BARRIER else Heartbeat()


def _parts(body: Body) -> tuple[Kind, int, Runs, list[memoryview]]:
    """Return the kind of a body, its flags but RUNS, its runs, and its payload after their table."""
    match body:
        case Pages() | CompressedPages():
            flags, parts = _page_parts(body)
            return Kind.PAGES, flags, body.runs, parts
        case Zeros():
            return Kind.ZEROS, _DIGESTED if body.digested else 0, body.runs, []
        case Digests():
            return Kind.DIGESTS, 0, body.runs, [body.digests.data.cast("B")]
        case Device():
            return Kind.DEVICE, 0, NO_RUNS, encode_record(body.record)
        case Barrier(cut):
            return Kind.BARRIER, _CUT if cut else 0, NO_RUNS, []
        case Heartbeat():
            return Kind.HEARTBEAT, 0, NO_RUNS, []


def _page_parts(body: Pages | CompressedPages) -> tuple[int, list[memoryview]]:
    flags, tables = 0, []
    if body.digests is not None:
        flags, tables = _DIGESTED, [body.digests.data.cast("B")]
    if isinstance(body, Pages) and body.digest_summed:
        flags |= _DIGEST_SUMMED
    if isinstance(body, CompressedPages):
        flags |= _CODEC_FLAGS[body.codec]
        if body.bases is not None:
            flags |= _DELTA
            tables.append(body.bases.data.cast("B"))
    return flags, [*tables, body.data]


def _checksum(fields: bytes | memoryview, *payload: memoryview) -> int:
    digest = xxhash.xxh3_64(seed=xxhash.xxh3_64_intdigest(fields))
    for part in payload:
        digest.update(part)
    return digest.intdigest()
