"""The rounds while the guest runs, until the remainder is worth a stop.

The figures that the decision looks at are measured here; the decision itself is vm_migration.transfer.convergence.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from source_agent.expectation import ASSUMED_RATE, decided_with
from source_agent.progress import ProgressBoard
from source_agent.rounds import Rounds
from source_agent.terms import Terms
from source_agent.throttling import Throttling
from vm_migration.errors import AttemptFailed
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process
from vm_migration.machine.errors import MachineGone
from vm_migration.transfer.convergence import (
    DEVICE_BYTES_PER_S,
    Continue,
    Fail,
    RoundMeasurement,
    Situation,
    StandstillCosts,
    SwitchOver,
    decide,
)
from vm_migration.transfer.ranges import Range
from vm_migration.transfer.stall import Boundary, StallWatch
from vm_migration.transfer.throttle import is_worth_it
from vmm.memory.quantities import PAGE_SIZE

_SHOW_EVERY: Final = 0.2
_WAIT_FOR_DEVICES: Final = 0.1
"""Seconds between two rounds when nothing but a device's initial data is waited for."""


class Precopy:
    """Runs the rounds of one attempt."""

    def __init__(
        self,
        rounds: Rounds,
        custody: Custody,
        board: ProgressBoard,
        terms: Terms,
        hash_bytes_per_s: float,
        *,
        throttling: Throttling,
        fixed_standstill_ms: Range | None = None,
        device_bytes_per_s: float = DEVICE_BYTES_PER_S,
    ) -> None:
        self._forced = False
        self._stalls = StallWatch()
        self._throttling: Final = throttling
        self._rounds: Final = rounds
        self._custody: Final = custody
        self._board: Final = board
        self._hash_bytes_per_s: Final = hash_bytes_per_s
        self._fixed_standstill_ms: Final = fixed_standstill_ms
        self._device_bytes_per_s: Final = device_bytes_per_s
        self._terms = terms
        self.tune(terms)

    def tune(self, terms: Terms) -> None:
        """Work under changed terms from now on."""
        self._terms = terms
        self._rounds.limit(terms.max_bandwidth_bytes_per_s)

    def force(self) -> None:
        """Come to the end at once, also in the middle of a round, as far as the destination lets one be cut."""
        self._forced = True
        self._rounds.cut()
        self._board.show(replace(self._board.progress, reason="was forced: ends the round, then stops the guest"))

    async def run(self, elapsed_ms: Callable[[], float]) -> tuple[float, bool]:
        """Send rounds until it is time; return the standstill expected in milliseconds, and whether it was forced.

        Raises:
            AttemptFailed: It does not converge within the attempt's time.
            MigrationError, MachineError: The link or the machine failed.
        """
        left = max(0.0, (self._terms.timeout_ms - elapsed_ms()) / 1000)
        forcing = asyncio.get_running_loop().call_later(left, self.force) if self._terms.force_on_timeout else None
        time = asyncio.timeout(None if forcing else left)
        try:
            async with time:
                await self._rounds.begin()
                return await self._until_time(elapsed_ms)
        except TimeoutError:
            if not time.expired():  # something else was not answered in time
                raise
            text = f"Migration did not converge in {self._terms.timeout_ms} ms; rounds so far: {self._rounds.number}"
            raise AttemptFailed("timeout", text, "Raise --timeout, or use --on-timeout force") from None
        finally:
            if forcing:
                forcing.cancel()

    async def _until_time(self, elapsed_ms: Callable[[], float]) -> tuple[float, bool]:
        while True:
            await self._one_round()
            self._note_boundary(elapsed_ms())
            fixed_ms = decided_with(self._fixed_standstill_ms, self._terms.downtime_limit_ms)
            costs = StandstillCosts(
                fixed_ms, self._rounds.devices.left_bytes, self._hash_bytes_per_s, self._device_bytes_per_s
            )
            situation = Situation(
                history=self._board.progress.rounds.recent,
                unhashed_bytes=self._rounds.unhashed_bytes,
                elapsed_ms=elapsed_ms(),
                forced=self._forced,
                unacknowledged=self._rounds.devices.unacknowledged,
                stalls=self._stalls,
                throttle_percent=self._throttling.vcpus,
                device_throttle_percent=self._throttling.devices,
            )
            match decide(situation, self._terms.convergence(), costs):
                case Continue(standstill_ms=standstill) as decided:
                    self._board.show(replace(self._board.progress, expected_downtime_ms=standstill))
                    await self._throttle(decided, situation.history[-1])
                    if situation.unacknowledged and situation.history[-1].wire_bytes < PAGE_SIZE:
                        await asyncio.sleep(_WAIT_FOR_DEVICES)  # a device makes state without telling
                case SwitchOver(standstill_ms=standstill, forced=forced):
                    if math.isinf(standstill):  # forced before the link could be measured
                        standstill = costs.standstill_ms(self._left_bytes(), situation.unhashed_bytes, ASSUMED_RATE)
                    self._board.show(replace(self._board.progress, expected_downtime_ms=standstill))
                    return standstill, forced
                case Fail(code=code, message=message):
                    raise AttemptFailed(code, message, "Raise the limits, or ask for less load")

    def _note_boundary(self, at_ms: float) -> None:
        left = self._left_bytes() + self._rounds.devices.left_bytes
        self._stalls = self._stalls.after(Boundary(at_ms, left), self._terms.convergence().profile)

    async def _throttle(self, decided: Continue, last: RoundMeasurement) -> None:
        changed = await self._throttling.take(decided.throttle_percent, decided.device_throttle_percent)
        may_hold = self._terms.convergence().profile.device_maximum > 0
        of_devices = may_hold and not is_worth_it(last.dirtied_pages, last.dma_dirtied_pages)
        if changed or (self._stalls.presses and of_devices):
            reason = self._throttling.reason(of_devices=of_devices)
            self._board.show(replace(self._board.progress, reason=reason))

    def _left_bytes(self) -> int:
        return self._rounds.dirty_pages * PAGE_SIZE

    async def _one_round(self) -> None:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch(), name="round's progress")
            measured = await self._rounds.send_round()
            watcher.cancel()
        await self._show(measured)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_SHOW_EVERY)  # how often people see a new figure
            if self._custody.process() is Process.GONE:  # its memory could be sent to the end, and for nothing
                raise MachineGone("Machine's process ended while its memory was sent")
            counts = self._rounds.counts
            done = counts.sent_pages + counts.zero_pages
            self._board.show(
                replace(
                    self._board.progress,
                    percent=99 if self._rounds.number > 0 else min(99, 100 * done // max(1, counts.pages)),
                    wire_bytes=self._rounds.wire_bytes,
                    raw_bytes=self._rounds.raw_bytes,
                    compression=self._rounds.compression,
                    remaining_bytes=max(0, counts.pages - done) * PAGE_SIZE,
                )
            )

    async def _show(self, measured: RoundMeasurement) -> None:
        description = await self._custody.port.describe()
        self._throttling.heard(description)
        devices = description.device_throttle
        measured = replace(
            measured,
            throttle_percent=description.throttle_percent or 0,
            device_throttle_percent=0 if devices is None else devices.percent,
        )
        progress = self._board.progress
        self._board.show(
            replace(
                progress,
                rounds=progress.rounds.closing(measured),
                wire_bytes=self._rounds.wire_bytes,
                raw_bytes=self._rounds.raw_bytes,
                compression=self._rounds.compression,
                bases_looked_up=self._rounds.remembered.looked_up,
                bases_found=self._rounds.remembered.found,
                remaining_bytes=self._left_bytes(),
                device_bytes=self._rounds.devices.total.data_bytes,
                device_left_bytes=self._rounds.devices.left_bytes,
                guest=description.guest,
                percent=99,
            )
        )
