"""Messages of agents as text in a store: the bytes that they came as, beside the words that version 0.1.0 reads.

::

    {"@wire": "CgYIAxAB...", "phase": "pre-copy", "percent": 42, ...}

The words are protobuf's JSON. Those of a report of sixty rounds take a millisecond to write and three to read, the
bytes some hundredths of that. So of an attempt that goes on only plain fields are worded, its rounds once it has ended.
0.1.0 passes over the bytes; what it writes has none, and is read by its words here.
"""

from typing import Final, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound=Message)
_WIRE: Final = "@wire"
"""No field of a message is called so."""


class _Carried(msgspec.Struct, frozen=True, rename={"wire": _WIRE}):
    """Of a text what is read of it."""

    wire: bytes | None = None


_carried: Final = msgspec.json.Decoder(_Carried)
_encoder: Final = msgspec.json.Encoder()


def text_of(message: Message, *, whole: bool) -> str:
    """Return a message as text; `whole`: with all of its words, else with those of its plain fields."""
    words = json_format.MessageToDict(message, preserving_proto_field_name=True) if whole else _plain(message)
    return _encoder.encode({_WIRE: message.SerializeToString(), **words}).decode()


def message_in(text: str, into: MessageT) -> MessageT:
    """Read a text into an empty message, and return that."""
    wire = _carried.decode(text).wire
    if wire is None:
        return json_format.Parse(text, into, ignore_unknown_fields=True)
    into.ParseFromString(wire)
    return into


def _plain(message: Message) -> dict[str, str | int | float]:
    """Return the fields that are numbers, truths and words themselves."""
    return {field.name: value for field, value in message.ListFields() if isinstance(value, str | int | float)}
