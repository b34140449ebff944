"""What lies in etcd: the names of keys, and attempts, events, owners and outbox as their values, in JSON.

::

    /viaduct/SITE/version                         of this layout
                 /attempt/ATTEMPT                 the row, and how many events it has
                 /open/MACHINE                    the attempt that is open; at most one a machine, by its name
                 /ended/TIME/ATTEMPT              what has ended, oldest first
                 /event/ATTEMPT/SEQUENCE          append-only, without gap
                 /owner/MACHINE                   where it lives
                 /outbox/SUBJECT/event/SEQUENCE   what is yet to be published, and by whom: each event,
                 /outbox/SUBJECT/state            an attempt's state, a machine's owner as they then stand
                 /outbox/SUBJECT/owner
                 /entry/KEY                       orchestrator.store.entries
                 /leader                          who leads, for as long as its lease lives

Every write of an attempt's events and outbox writes its row too, whose revision is what transactions compare.
Fields that a value lacks have their defaults, and fields that are not known are left alone: versions may differ.
"""

from typing import Final, cast

import msgspec
from google.protobuf.message import Message

from orchestrator.attempt import Attempt, Event
from orchestrator.store.message_text import message_in, text_of
from orchestrator.store.store import OpenRow, OutboxRow, Ownership
from vm_migration.api.etcd import rpc_pb2 as api

VERSION: Final = 1
_ORDERS: Final = 1024


class AttemptValue(msgspec.Struct, frozen=True):
    """An attempt, and the sequence number of its last event."""

    row: Attempt
    events: int = 0


def replace_row(value: AttemptValue, row: Attempt) -> AttemptValue:
    """Return an attempt's value with its row written again."""
    return AttemptValue(row, value.events)


class OpenValue(msgspec.Struct, frozen=True):
    """Of an attempt's value what is looked at often."""

    row: OpenRow


class OutboxValue(msgspec.Struct, frozen=True):
    """Who publishes what; `order` is the place among what was written in one transaction."""

    driver: str
    kind: str
    subject: str
    sequence: int
    order: int = 0


class Keys:
    """The names of one site's keys."""

    def __init__(self, site: str) -> None:
        root = f"/viaduct/{site}/"
        self._root = root
        self.version = f"{root}version".encode()
        self.leader = f"{root}leader".encode()
        self.attempts = f"{root}attempt/".encode()
        self.open = f"{root}open/".encode()
        self.ended = f"{root}ended/".encode()
        self.owners = f"{root}owner/".encode()
        self.outbox = f"{root}outbox/".encode()
        self.entries = f"{root}entry/".encode()

    def attempt(self, attempt: str) -> bytes:
        """Return where an attempt lies."""
        return self.attempts + attempt.encode()

    def open_of(self, machine: str) -> bytes:
        """Return where a machine's open attempt is named."""
        return self.open + machine.encode()

    def ended_at(self, attempt: Attempt) -> bytes:
        """Return where it is noted that an attempt ended when it was written last."""
        return self.ended + f"{time_text(attempt.updated_at)}/{attempt.attempt}".encode()

    def events_of(self, attempt: str) -> bytes:
        """Return the start of the names of an attempt's events."""
        return f"{self._root}event/{attempt}/".encode()

    def event(self, attempt: str, sequence: int) -> bytes:
        """Return where an event lies."""
        return self.events_of(attempt) + f"{sequence:010}".encode()

    def owner(self, machine: str) -> bytes:
        """Return where it is written where a machine lives."""
        return self.owners + machine.encode()

    def outbox_of(self, subject: str) -> bytes:
        """Return the start of the names of what is to be published of an attempt or a machine."""
        return self.outbox + f"{subject}/".encode()

    def outbox_entry(self, value: OutboxValue) -> bytes:
        """Return where one of them lies."""
        last = f"/{value.sequence:010}" if value.kind == "event" else ""
        return self.outbox_of(value.subject) + f"{value.kind}{last}".encode()

    def entry(self, key: str) -> bytes:
        """Return where an entry lies."""
        return self.entries + key.encode()


def time_text(seconds: float) -> str:
    """Return a time in milliseconds, so that texts are in the order of times."""
    return f"{max(0, round(seconds * 1000)):020}"


def encode_attempt(value: AttemptValue) -> bytes:
    """Return an attempt's value."""
    return msgspec.json.encode(value, enc_hook=_text_of)


def decode_attempt(value: bytes) -> AttemptValue:
    """Read an attempt's value."""
    return msgspec.json.decode(value, type=AttemptValue, dec_hook=_message_of)


def decode_open(value: bytes) -> OpenRow:
    """Read of an attempt's value what is looked at often."""
    return msgspec.json.decode(value, type=OpenValue).row


def encode_event(event: Event) -> bytes:
    """Return an event's value."""
    return msgspec.json.encode(event)


def decode_event(value: bytes) -> Event:
    """Read an event's value."""
    return msgspec.json.decode(value, type=Event)


def encode_owner(owner: Ownership) -> bytes:
    """Return the value of where a machine lives."""
    return msgspec.json.encode(owner)


def decode_owner(value: bytes) -> Ownership:
    """Read the value of where a machine lives."""
    return msgspec.json.decode(value, type=Ownership)


def encode_outbox(value: OutboxValue) -> bytes:
    """Return the value of what is to be published."""
    return msgspec.json.encode(value)


def decode_outbox(value: bytes) -> OutboxValue:
    """Read the value of what is to be published."""
    return msgspec.json.decode(value, type=OutboxValue)


def outbox_row(found: api.KeyValue) -> tuple[str, OutboxRow]:
    """Return who publishes something, and what: numbered by when it was written last, and in which order."""
    value = decode_outbox(found.value)
    number = found.mod_revision * _ORDERS + value.order
    return value.driver, OutboxRow(number, value.kind, value.subject, value.sequence)


def revision_of(number: int) -> int:
    """Return at which revision an entry was written last that has this number."""
    return number // _ORDERS


def _text_of(message: object) -> str:
    if not isinstance(message, Message):
        raise NotImplementedError  # so msgspec is told that it must refuse the type itself
    return text_of(message, whole=False)


def _message_of(kind: type, text: object) -> Message:
    if not issubclass(kind, Message):
        raise NotImplementedError  # likewise
    return message_in(cast("str", text), kind())
