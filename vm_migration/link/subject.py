"""What a call is about: the machine, the attempt and the epoch that its messages name.

A field is looked for in a message's key first, where it has one, then in the machine that it tells of, then in itself.
"""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

_LONGEST: Final = 256
"""Letters of one field: what a peer sends must not fill the disk."""


def text_in(messages: Sequence[Message], name: str) -> str:
    """Return the first text of that name that says anything, cut where it is too long; empty when none does."""
    return next((str(value)[:_LONGEST] for value in _values(messages, name) if isinstance(value, str) and value), "")


def number_in(messages: Sequence[Message], name: str) -> int:
    """Return the first number of that name that is not 0; 0 when there is none."""
    return next((value for value in _values(messages, name) if isinstance(value, int) and value), 0)


def subject_of(request: object) -> dict[str, str | int]:
    """Return what is known of machine, attempt and epoch from a request, for the log; streams tell nothing."""
    said = [request] if isinstance(request, Message) else []
    found: dict[str, str | int] = {
        "machine": text_in(said, "machine"),
        "attempt": text_in(said, "attempt"),
        "epoch": number_in(said, "epoch"),
    }
    return {name: value for name, value in found.items() if value}


def _values(messages: Sequence[Message], name: str) -> list[object]:
    found: list[object] = []
    for message in messages:
        key: object = getattr(message, "key", None)
        holders = (key, getattr(message, "status", None), message)
        found += [getattr(holder, name) for holder in holders if isinstance(holder, Message) and hasattr(holder, name)]
    return found
