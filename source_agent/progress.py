"""What an attempt has come to, as it is told to whoever watches: one value, replaced whole at each step."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from vm_migration.transfer.downtime import Downtime
from vm_migration.transfer.round_log import RoundLog
from vmm.process.control import GuestFigures, Observation


class Phase(StrEnum):
    """Where an attempt stands; each comes once, in this order, but for the three ends."""

    BEGUN = "begun"
    STARTING = "starting"
    """Of an update: another process comes up beside the one that has the machine."""
    PRE_COPY = "pre-copy"
    STOPPING = "stopping"
    SWITCHING = "switching"
    """Of an update: the guest stands still, and the other process takes over."""
    VERIFYING = "verifying"
    RELEASING = "releasing"
    RESUMING = "resuming"
    """Of an update: the other process is told to run."""
    HANDING_OVER = "handing-over"
    COMPLETED = "completed"
    ABORTED = "aborted"
    LOST = "lost"


CANCELLABLE: Final = frozenset(
    {Phase.BEGUN, Phase.STARTING, Phase.PRE_COPY, Phase.STOPPING, Phase.SWITCHING, Phase.VERIFYING}
)
ENDED: Final = frozenset({Phase.COMPLETED, Phase.ABORTED, Phase.LOST})


class Outcome(StrEnum):
    """How an attempt ended at its source; empty while it is open."""

    OPEN = ""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FailureText:
    """A stable code, what happened, what to do."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything that is told; times in milliseconds."""

    phase: Phase = Phase.BEGUN
    reason: str = "waits for the destination"
    sequence: int = 0
    percent: int = 0
    outcome: Outcome = Outcome.OPEN
    rounds: RoundLog = field(default_factory=RoundLog)
    downtime: Downtime | None = None
    verified_by: str = "none"
    total_ms: float = 0.0
    started_after_ms: float = 0.0
    """From Begin to Start, in which the destination prepares."""
    bulk_ms: float = 0.0
    wire_bytes: int = 0
    raw_bytes: int = 0
    """Of the pages that were sent, before anything made them fewer."""
    transport: str = ""
    """How the bulk streams travel."""
    compression: str = "none"
    """The codec of the last frame that was compressed."""
    bases_looked_up: int = 0
    """Pages sent again of which what was sent last was looked for, to send what changed in them alone."""
    bases_found: int = 0
    remaining_bytes: int = 0
    device_bytes: int = 0
    """Of the devices' state, read for the destination so far."""
    device_bytes_stopped: int = 0
    """Of that, what was read while the machine stood still."""
    device_left_bytes: int = 0
    """Of it, what a stop would leave to be moved, as the host estimates."""
    expected_downtime_ms: float = 0.0
    pages_verified: int = 0
    pages_mismatched: int = 0
    mismatched: tuple[int, ...] = ()
    failure: FailureText | None = None
    guest: GuestFigures | None = None
    warnings: tuple[Observation, ...] = field(default=())


class ProgressBoard:
    """The present value, and a way to wait for the next."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._changed = asyncio.Event()

    @property
    def progress(self) -> Progress:
        """The present value."""
        return self._progress

    def show(self, progress: Progress) -> None:
        """Replace the value; a new phase takes the next number and begins at nought percent."""
        if progress.phase is not self._progress.phase:
            progress = replace(progress, sequence=self._progress.sequence + 1, percent=0)
        elif progress.percent < self._progress.percent:
            progress = replace(progress, percent=self._progress.percent)
        self._progress = progress
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def next(self, longest: float) -> None:
        """Wait for the next change, or for so many seconds."""
        changed = self._changed
        try:
            async with asyncio.timeout(longest):
                await changed.wait()
        except TimeoutError:
            return

    async def news(self, told: Progress, longest: float, apart: float) -> None:
        """Wait until there is something worth telling to whom `told` was told last.

        A new phase and what follows an end are told at once. Rounds may close by the hundred in a second: other changes
        wait until `apart` seconds have passed. Without any, it is over after `longest` seconds.
        """
        try:
            async with asyncio.timeout(longest):
                try:
                    async with asyncio.timeout(apart):
                        await self._until(
                            lambda now: now is not told and (now.phase in ENDED or now.phase != told.phase)
                        )
                except TimeoutError:
                    await self._until(lambda now: now is not told)
        except TimeoutError:
            return

    async def _until(self, enough: Callable[[Progress], bool]) -> None:
        while not enough(self._progress):
            await self._changed.wait()
