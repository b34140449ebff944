"""What a record's specification says of its machine, read without all the rest of it.

A record that another release wrote may have a specification that this one does not take: its machine has a name and a
kind all the same.
"""

import msgspec

from vm_migration.handover.record import Record


class _Heading(msgspec.Struct):
    """The keys of a specification that are wanted here."""

    name: str = ""
    kind: str = "model"


def name_in(record: Record) -> str:
    """Return the name in a record's specification; empty where it has none."""
    return _heading_of(record).name


def kind_in(record: Record) -> str:
    """Return the kind of machine in a record's specification; where it has none, a model, as in specifications."""
    return _heading_of(record).kind


def _heading_of(record: Record) -> _Heading:
    try:
        return msgspec.json.decode(record.specification, type=_Heading)
    except msgspec.DecodeError:
        return _Heading()
