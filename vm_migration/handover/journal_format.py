r"""The bytes of a journal file: one record a line, then the space reserved for closing records.

::

    00000123 8f2b6c01d5a7e390 {"machine":...}\n      length of the JSON and its xxh3_64, in hexadecimal
    ...
    \0\0\0\0\0\0\0\0\0\0\0                           reserved; a line never holds a NUL

An append that a power cut interrupted leaves a last line that lacks its end, or whose missing sectors read as NUL.
That, and only as the tail of the file, is a torn record: it was never confirmed to anybody and is cut off. A line that
is there in full and does not match its checksum has rotted, wherever it stands: the file is then unreadable, because
taking the record before it for the last one could undo a RELEASED.
"""

from dataclasses import dataclass

import xxhash

_PREFIX = 26


class CorruptJournal(ValueError):
    """The bytes are not a journal with at most its last append torn."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a journal file holds: its records' JSON, where the last line begins and ends, how long the torn tail is."""

    payloads: tuple[bytes, ...]
    last_start: int
    end: int
    torn: int


def line(payload: bytes) -> bytes:
    """The line that holds one record."""
    return b"%08x %016x %s\n" % (len(payload), xxhash.xxh3_64_intdigest(payload), payload)


def scan(data: bytes) -> Scan:
    """Read a whole file; raises CorruptJournal when it holds no whole record or is damaged before its tail."""
    payloads: list[bytes] = []
    last_start = end = 0
    while True:
        newline = data.find(b"\n", end)
        payload = _payload(data[end : newline + 1]) if newline >= 0 else None
        if payload is None:
            break
        payloads.append(payload)
        last_start, end = end, newline + 1
    rest = data[end:]
    torn = 0 if rest == bytes(len(rest)) else len(rest.rstrip(b"\0"))
    if torn:
        _check_torn(data[end : end + torn])
    if not payloads:
        raise CorruptJournal("It holds no record")
    return Scan(tuple(payloads), last_start, end, torn)


def _payload(text: bytes) -> bytes | None:
    """The JSON of a line that is whole and right."""
    payload = text[_PREFIX:-1]
    return payload if text == line(payload) else None


def _check_torn(tail: bytes) -> None:
    ends = tail.count(b"\n")
    if ends > 1 or (ends == 1 and not tail.endswith(b"\n")):
        raise CorruptJournal("A record before the last one is damaged")
    if ends == 1 and b"\0" not in tail:
        raise CorruptJournal("The last record is there in full and does not match its checksum")
