"""A QEMU that is watched: what it says of itself now, when the guest stopped and went on, and how often it stopped.

A stop is counted when QEMU's STOP event comes. After a connection that broke nobody knows how often the guest went on
and stopped meanwhile: one that stands still then stands at a new stop, so that nothing is founded on the old one.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vm_migration.machine.errors import MachineGone
from vm_migration.machine.qemu.answers import Migration, Status
from vm_migration.machine.qemu.run_states import stands_still
from vm_migration.machine.qemu.session import QmpSession
from vm_migration.machine.qemu.streaming import under_way

_CHANGES: Final = frozenset({"MIGRATION", "STOP", "RESUME"})
_LOOK_AGAIN: Final = 0.1
"""Seconds: an event may have come between a question and the wait for one."""


class Monitor:
    """The one client of a QEMU's QMP."""

    def __init__(self, path: Path, *, pause: int = 0, seen_before: bool = False) -> None:
        """`seen_before`: it was watched before this process came, up to its stop number `pause`."""
        self.session: Final = QmpSession(path, self._hear)
        self.pause = pause
        self.stopped_by_stream = False
        """It stands still because its own stream has stopped the guest, which ran before."""
        self.resumed: Final = asyncio.Event()
        """The guest was set going, by whomever; whoever waits for it clears it."""
        self.runs = False
        self._moments: Final[dict[str, int]] = {}
        self._streaming = False
        self._known = seen_before
        self._heard = 0
        self._changed: Final = asyncio.Event()
        self._opening: Final = asyncio.Lock()

    @property
    def moments(self) -> Mapping[str, int]:
        """When the last STOP and RESUME were heard, on the host's monotonic clock; not there before the first."""
        return self._moments

    async def status(self) -> Status:
        """Ask what state QEMU is in.

        Raises:
            MachineGone: It does not answer.
        """
        await self.require_connection()
        heard = self._heard
        status = await self.session.ask("query-status", Status)
        if heard == self._heard and stands_still(status) is self.runs:  # nothing was heard of it, as it should be
            self._take(runs=not self.runs)
        return status

    async def migration(self) -> Migration:
        """Ask how its stream is getting on.

        Raises:
            MachineGone: It does not answer.
        """
        await self.require_connection()
        found = await self.session.ask("query-migrate", Migration)
        self._streaming = under_way(found)
        return found

    async def changed(self, seconds: float) -> None:
        """Wait for the next event that may change an answer, for so long at most."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def require_connection(self) -> None:
        """Connect where that is still to be done, or to be done again.

        Raises:
            MachineGone: QEMU does not speak.
        """
        async with self._opening:
            if not self.session.connected:
                await self._connect()

    async def close(self) -> None:
        """Let go of QEMU, which goes on."""
        await self.session.close()

    def began_stream(self) -> None:
        """Note that a stream is started: what stops the guest from here on may be the stream."""
        self._streaming = True
        self.stopped_by_stream = False

    def stopped_anew(self) -> None:
        """Count a stop of a guest that stood still already, for a reason of its own."""
        self.pause += 1

    async def _connect(self) -> None:
        await self.session.open()
        heard = self._heard
        status = await self.session.ask("query-status", Status)
        if heard != self._heard:
            self._known = True
            return
        still = stands_still(status)
        if self._known and still:
            self.pause += 1
            self._moments["STOP"] = time.monotonic_ns()
            self.stopped_by_stream = False
        self.runs, self._known = not still, True
        if self.runs:
            self.resumed.set()

    def _hear(self, event: str) -> None:
        if event not in _CHANGES:
            return
        self._heard += event != "MIGRATION"
        if event == "RESUME" or (event == "STOP" and self.runs):
            self._take(runs=event == "RESUME")
        self._changed.set()

    def _take(self, *, runs: bool) -> None:
        self.runs = runs
        if runs:
            self.resumed.set()
        self._moments["RESUME" if runs else "STOP"] = time.monotonic_ns()
        self.stopped_by_stream = not runs and self._streaming
        if not runs:
            self.pause += 1


async def ended(monitor: Monitor, seconds: float) -> Migration:
    """Wait until no stream is under way, and return how the last one ended.

    Raises:
        MachineGone: It has not ended in so many seconds, or QEMU does not answer.
    """
    until = time.monotonic() + seconds
    while under_way(migration := await monitor.migration()):
        left = until - time.monotonic()
        if left <= 0:
            raise MachineGone(f"QEMU's stream is still {migration.status} after {seconds:g} s")
        await monitor.changed(min(left, _LOOK_AGAIN))
    return migration
