"""The first bytes on a direct connection: which stream of which attempt this is, and the ticket that proves it.

::

    0        4         5         6          8           24        28         32         64
    +--------+---------+---------+----------+-----------+---------+----------+----------+
    |  VDIR  | version |  flags  | reserved |  attempt  | stream  | reserved |  ticket  |
    +--------+---------+---------+----------+-----------+---------+----------+----------+

Little-endian; what is reserved is 0. Flag 1 asks for progress of the peer's own accord. With flag 2 a secret of 32
bytes follows, and both ends go on below TLS with records sealed by it (vm_migration.link.sealing).
"""

import struct
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from vm_migration.errors import Unauthorised

HELLO_BYTES: Final = 64
TICKET_BYTES: Final = 32
_MAGIC: Final = b"VDIR"
_VERSION: Final = 1
_TELLS: Final = 1
_SEALED: Final = 2
_FIELDS: Final = struct.Struct("<4sBBH16sII32s")
_HINT: Final = "Begin a new attempt"


@dataclass(frozen=True, slots=True)
class Hello:
    """What a stream says first."""

    attempt: UUID
    stream: int
    ticket: bytes = field(repr=False)
    tells: bool = True
    """The peer is asked to tell how far it is without being asked each time."""
    sealed: bool = False
    """What follows is a secret, and then sealed records."""


def encode_hello(hello: Hello) -> bytes:
    """Return a hello as bytes.

    Raises:
        Unauthorised: A ticket of another length, which cannot be one.
    """
    if len(hello.ticket) != TICKET_BYTES:
        text = f"Ticket of {len(hello.ticket)} bytes, not {TICKET_BYTES}, is no ticket of a direct stream"
        raise Unauthorised("wrong-ticket", text, _HINT)
    flags = (_TELLS if hello.tells else 0) | (_SEALED if hello.sealed else 0)
    return _FIELDS.pack(_MAGIC, _VERSION, flags, 0, hello.attempt.bytes, hello.stream, 0, hello.ticket)


def decode_hello(message: bytes | memoryview) -> Hello:
    """Return what a hello says.

    Raises:
        Unauthorised: It is none, or of another version.
    """
    if len(message) != HELLO_BYTES:
        raise Unauthorised("no-hello", f"Hello of {len(message)} bytes, not {HELLO_BYTES}", _HINT)
    magic, version, flags, reserved, attempt, stream, reserved_too, ticket = _FIELDS.unpack(message)
    if magic != _MAGIC:
        raise Unauthorised("no-hello", "What came first is no hello of a direct stream", _HINT)
    if version != _VERSION or flags & ~(_TELLS | _SEALED) or reserved or reserved_too:
        raise Unauthorised("no-hello", f"Hello of version {version} or with what version {_VERSION} lacks", _HINT)
    return Hello(UUID(bytes=attempt), stream, ticket, bool(flags & _TELLS), bool(flags & _SEALED))
