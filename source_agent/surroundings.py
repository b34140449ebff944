"""What an attempt is given from outside: by its agent, and by whoever starts its rounds."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.tls import TlsFiles
from vm_migration.transfer.convergence import DEVICE_BYTES_PER_S
from vm_migration.transfer.ranges import Range

BeforeHandoff = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Where the destination waits."""

    control_address: str
    bulk_address: str
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an attempt needs of its agent; the hash rate is measured, in bytes per second."""

    tls: TlsFiles | None
    before_handoff: BeforeHandoff
    hash_bytes_per_s: float
    boot_id: str
    channels: OpenChannel = open_channel
    fixed_standstill_ms: Range | None = None
    """What a standstill took beside its work of late; None where that is not known."""
    device_bytes_per_s: float = DEVICE_BYTES_PER_S
    """How fast devices' state went over while a machine stood still, of late."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, for what must outlive a boot."""
