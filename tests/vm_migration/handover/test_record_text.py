"""A record as text: what it shows, what it hides, and that nothing is half read."""

import msgspec
import pytest

from tests.vm_migration.handover.test_handover_operations import OUTGOING, SECRET
from vm_migration.handover.record import decode, encode
from vm_migration.handover.secret import draw, matches, secret_hash


def test_the_secret_is_in_no_text_but_the_journals_own() -> None:
    assert SECRET.hex() not in repr(OUTGOING) + str(OUTGOING) + f"{[OUTGOING]}"
    assert SECRET.hex() in encode(OUTGOING).decode()
    assert SECRET.hex() not in encode(OUTGOING.public()).decode()
    assert decode(encode(OUTGOING)) == OUTGOING


def test_a_record_of_a_newer_version_is_not_half_read() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(encode(OUTGOING)[:-1] + b',"later":1}')


def test_the_secret_is_drawn_from_the_bytes_it_is_given() -> None:
    assert draw(bytes) == bytes(32)
    assert matches(SECRET, secret_hash(SECRET))
    assert not matches(SECRET[:31], secret_hash(SECRET[:31]))
