"""A machine's journal as a file (vm_migration.handover.journal_format and record)."""

import msgspec

from tests.fuzz.target import Broken, Target, same
from tests.vm_migration.handover.test_handover_operations import OUTGOING, READY, STOPPED
from vm_migration.handover.journal_format import CorruptJournal, line, scan
from vm_migration.handover.record import Record, decode, encode


def _read(data: bytes) -> None:
    found = scan(data)
    same(b"".join(line(payload) for payload in found.payloads), data[: found.end])
    if found.end + found.torn > len(data) or any(data[found.end + found.torn :]):
        raise Broken("Something but reserved space stands behind a journal's end")
    for payload in found.payloads:
        record = decode(payload)
        if decode(encode(record)) != record:
            raise Broken("A record is another when it is written again")


def _mended(data: bytes) -> bytes:
    """Put length and checksum of each line right."""
    return b"".join(line(text[26:]) for text in data.rstrip(b"\0").splitlines() if len(text) > 26)


def _journal(*records: Record) -> bytes:
    return b"".join(line(encode(record)) for record in records)


_TWO = _journal(OUTGOING, STOPPED)
TARGET = Target(
    "journal",
    _read,
    refusals=(CorruptJournal, msgspec.DecodeError),
    seeds={"one": _journal(READY), "reserved": _TWO + bytes(64), "torn": _TWO + line(encode(READY))[:40] + bytes(24)},
    mended=_mended,
    factor=64,
)
