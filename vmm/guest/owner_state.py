"""How far a device is on its way from one owner to another, and what of that moves with the guest."""

from enum import StrEnum

import msgspec

from vmm.guest.churn import ChurnState
from vmm.guest.console import GuestAction


class Phase(StrEnum):
    """Where a device is between its owners."""

    RUNNING = "running"
    """With its owner, in the owner's domain."""
    DRAINING = "draining"
    """Its owner finishes what is in flight and looks at all of it."""
    CLOSED = "closed"
    """Disabled, and still in its old owner's domain: what a user-level driver mapped is still in the tables."""
    AWAY = "away"
    """Blocked, with the old owner's tables still there."""
    FREED = "freed"
    """Blocked, and a user-level driver's tables are gone."""
    BOUND = "bound"
    """In the new owner's domain; a user-level driver's maps nothing yet."""
    MAPPED = "mapped"
    """Its memory can be reached; the device is disabled."""
    QUIESCING = "quiescing"
    """It is given no more work and finishes writing; nobody looks at what it wrote."""
    BLOCKED = "blocked"
    """Blocked as it was: its driver has it open, its domain keeps its mappings."""
    SUSPENDING = "suspending"
    """Its owner finishes what is in flight, and disables it."""
    SUSPENDED = "suspended"
    """Disabled, in its owner's domain, until the guest wakes."""


class OwnerState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """Everything beyond guest RAM of one device's driver and owners; times are spans."""

    phase: Phase
    user: bool
    """Whether a user-level driver owns the device, or owned it last."""
    quiet: bool
    wedged: bool
    actions: tuple[GuestAction, ...]
    since_take_ns: int
    held_ns: int
    waited_ns: int
    switches: int
    errors: int
    churn: ChurnState | None
    driver: bytes
