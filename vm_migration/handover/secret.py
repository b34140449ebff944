"""The secret that activates a destination.

The source draws it at Begin and gives away only its SHA-256. The secret itself leaves the source after RELEASED is
durable, so whoever holds it holds the proof that the source will not run that copy again. It serves one attempt.
"""

import hashlib
import hmac
from collections.abc import Callable

SECRET_BYTES = 32


def draw(random_bytes: Callable[[int], bytes]) -> bytes:
    """Draw a secret from a source of unpredictable bytes (`os.urandom`)."""
    return random_bytes(SECRET_BYTES)


def secret_hash(secret: bytes) -> bytes:
    """The SHA-256 that may be shown to anybody."""
    return hashlib.sha256(secret).digest()


def matches(secret: bytes, expected_hash: bytes) -> bool:
    """Whether `secret` is the one whose hash was journalled; takes the same time for every wrong answer."""
    return len(secret) == SECRET_BYTES and hmac.compare_digest(secret_hash(secret), expected_hash)
