"""What a machine process leaves for the image that replaces it in the same process: mode exec (semantics 9.8).

::

    memfd    the two documents of an update, the numbers of the descriptors that stay open across execve, and who
             asked for it

Versioned and canonical, as the documents in it. It is never written again: an image that refuses it leaves it to the
one before as it was.
"""

import os

import msgspec

from vmm.update.documents import InvalidHandover, encode, require_read


class Stop(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the guest stands: the number of its pause, whether it ran, and when it executed last."""

    pause: int
    was_running: bool
    last_executed_ns: int


class Asker(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who asked: the descriptor of the connection that waits for the answer, and what it attached as."""

    descriptor: int
    epoch: int
    controller: int


class Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything that the process is, but for its program and its memory."""

    version: int
    early: bytes
    state: bytes
    numbers: tuple[int, ...]
    """Of the descriptors, in the order of the early document's names."""
    instance: str
    stop: Stop
    asker: Asker


def write(kept: Kept) -> int:
    """Return a descriptor that stays open across execve and holds what is kept.

    Raises:
        OSError: The kernel gives no memory file.
    """
    number = os.memfd_create("viaduct-kept", 0)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(encode(kept))
    except OSError:
        os.close(number)
        raise
    return number


def read(number: int) -> Kept:
    """Return what the image before left; the descriptor stays open.

    Raises:
        InvalidHandover: It is of another format, or none.
    """
    try:
        with open(number, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        kept = msgspec.msgpack.decode(data, type=Kept)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidHandover(f"What the image before left cannot be read: {error}") from error
    require_read(kept.version, "What the image before left")
    if encode(kept) != data:
        raise InvalidHandover("What the image before left is not in its canonical form")
    return kept
