"""What an operator vouches for, and what is planned on that word for every machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.diagnosis.pairs import Pair
from vm_migration.errors import MigrationError
from vm_migration.handover.record import Record

Journalled = Record | MigrationError
"""A machine's last record, with its secret, or why it cannot be read."""


class Act(StrEnum):
    """What is done to a machine."""

    HAND_OFF = "hand-off"
    RELEASE_AND_HAND_OFF = "release-and-hand-off"
    DISCARD = "discard"
    TAKE_AT_DESTINATION = "take-at-destination"
    TAKE_AT_SOURCE = "take-at-source"
    WRITE_OFF = "write-off"
    """No image of the machine is left anywhere: LOST, above every epoch that was seen."""
    NOTE_RETIRED = "note-retired"
    GO_ON = "go-on"
    NOTHING = "nothing"
    """The only copy is on the host that is off."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One step: at which host, what it does in words, and which writes may be missing after it."""

    act: Act
    machine: str
    name: str
    host: str
    message: str
    missing: str = ""
    pair: Pair | None = None
    journalled: Record | None = field(default=None, repr=False)
    """What the journal of the host that is off says, its secret among it."""
    highest_seen: int = 0


@dataclass(frozen=True, slots=True)
class NotPlanned:
    """A machine that waits for the host and cannot be helped like this, and what would help."""

    machine: str
    name: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that follows."""

    steps: tuple[Planned, ...]
    refused: tuple[NotPlanned, ...]

    @property
    def acts(self) -> tuple[Planned, ...]:
        """The steps that do something."""
        return tuple(one for one in self.steps if one.act is not Act.NOTHING)


@dataclass(frozen=True, slots=True)
class Word:
    """What the operator says: which host is off, which others are, whether writes may be missing."""

    fenced: str
    also_off: tuple[str, ...] = ()
    may_miss_writes: bool = False
    journals: Mapping[str, Journalled] | None = None
    """HOST's journals, where its disk is mounted."""
    epochs: Mapping[str, int] = field(default_factory=dict)
    """The epoch at which the orchestrator's store last recorded an owner of each machine, whichever host that was."""
    owned: Mapping[str, str] = field(default_factory=dict)
    """Machines of which HOST had the only copy by the orchestrator's store or its own journals, UUID -> name."""
