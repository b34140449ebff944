"""Records of a sealed stream: AES-256-GCM over whole messages, with keys of one connection and one direction.

::

    record      length: u32, little-endian, of what follows
                ciphertext, as long as what it says; tag, 16 bytes
    nonce       u32 0, u64 count of the direction's records, big-endian; never on the wire
    associated  the 4 bytes of length
    key         HKDF-SHA-256 of the connection's secret (RFC 5869), info "viaduct-sealed/1", direction, span: u64

A span is 2^20 records, after which a direction goes on with the next key: less than 2^37 blocks are sealed under one
(RFC 8446 section 5.5 and RFC 9001 section 6.6 ask for bounds of that order). The count goes on over spans.

A record that is changed, left out, repeated, from another place, direction or connection does not open. Why this and
not TLS records: docs/adr/0015.
"""

import struct
from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES: Final = 32
LENGTH_BYTES: Final = 4
TAG_BYTES: Final = 16
SPAN: Final = 1 << 20
"""Records under one key."""
_LABEL: Final = b"viaduct-sealed/1"
_LENGTH: Final = struct.Struct("<I")
_SPAN: Final = struct.Struct(">Q")
_NONCE: Final = struct.Struct(">IQ")

Buffer = bytes | bytearray | memoryview


class Direction(Enum):
    """Which way records go."""

    TO_DESTINATION = b"to destination"
    TO_SOURCE = b"to source"


class NotSealed(ConnectionError):
    """A record does not open: it was changed, or is not the next one of this connection."""


class _Keys:
    """The key of one direction's next record, and its nonce."""

    def __init__(self, secret: bytes, direction: Direction) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"Secret of {len(secret)} bytes, not {SECRET_BYTES}")
        self._secret: Final = secret
        self._direction: Final = direction
        self._count = 0
        self._key = self._of_span(0)

    def take(self) -> tuple[AESGCM, bytes]:
        """Return key and nonce of the next record, which nobody gets again."""
        count = self._count
        if count and not count % SPAN:
            self._key = self._of_span(count // SPAN)
        self._count = count + 1
        return self._key, _NONCE.pack(0, count)

    def _of_span(self, span: int) -> AESGCM:
        info = b"|".join((_LABEL, self._direction.value, _SPAN.pack(span)))
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret))


class Sealer:
    """Seals one direction's records."""

    def __init__(self, secret: bytes, direction: Direction) -> None:
        """Begin with a secret that no other connection has or will have."""
        self._keys: Final = _Keys(secret, direction)

    def seal(self, message: Buffer, into: memoryview) -> memoryview:
        """Write a message's record into a buffer that has room for it, and return that part of the buffer."""
        sealed = len(message) + TAG_BYTES
        _LENGTH.pack_into(into, 0, sealed)
        key, nonce = self._keys.take()
        record = into[: LENGTH_BYTES + sealed]
        key.encrypt_into(nonce, message, record[:LENGTH_BYTES], record[LENGTH_BYTES:])
        return record


class Opener:
    """Opens one direction's records, each exactly once and in their order."""

    def __init__(self, secret: bytes, direction: Direction) -> None:
        """Begin with the secret that the other end seals with."""
        self._keys: Final = _Keys(secret, direction)

    def open(self, length: Buffer, sealed: Buffer, into: memoryview) -> None:
        """Write what a record says into a buffer of exactly its length.

        Raises:
            NotSealed: It does not open; what the buffer holds then means nothing.
        """
        key, nonce = self._keys.take()
        try:
            key.decrypt_into(nonce, sealed, length, into)
        except InvalidTag:
            raise NotSealed("A sealed record was changed on its way, or is not this connection's next") from None


def sealed_length(length: Buffer, longest: int) -> int:
    """Return how many bytes of message a record has, by its first four bytes.

    Raises:
        NotSealed: It has none, or more than `longest`.
    """
    said = int(_LENGTH.unpack_from(length)[0]) - TAG_BYTES
    if not 0 < said <= longest:
        raise NotSealed(f"A sealed record of {said} bytes, where 1 to {longest} may come")
    return said
