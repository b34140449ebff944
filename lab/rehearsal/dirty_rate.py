"""Dirty tracking without a migration: which pages were written within a window, and which of them it missed.

The window is `least_rounds` intervals of `work_ms` each, with a harvest at the end of each; `round-N` is the middle of
interval N. What was written in truth is told by comparing RAM with a copy taken as tracking began.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lab.observation import Observation
from lab.rehearsal.findings import first_sight
from lab.rehearsal.moments import Moments
from lab.rehearsal.plan import plan_of
from lab.rehearsal.side import Side, assembled_side, boot
from lab.rehearsal.stale_mappings import stale_mappings
from lab.scenario import RunSpecification, Scenario
from vmm.assembly.tracking_reason import TrackingReason
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.vfio.host_port import HostCallFailed

SETTLE_MS: Final = 40


@dataclass(frozen=True, slots=True)
class Window:
    """What tracking made of a window: the pages that it missed, and what failed."""

    pages: frozenset[int]
    failure: str | None


def measure_dirty_pages(scenario: Scenario) -> Observation:
    """Measure the scenario's machine, and return what was seen; pages that the result lacks are lost."""
    with assembled_side(scenario) as side:
        boot(side, scenario.document.run.seed)
        side.world.run_for(scenario.document.run.work_ms)
        moments = Moments(scenario.document.action, side)
        if moments.arrive("start"):
            side.world.run_for(SETTLE_MS)
        seen = replace(first_sight(side, plan_of(side, scenario)), blockers=(), error="")
        try:
            seen = _measure(scenario, side, moments, seen)
        except HostCallFailed as failure:
            return replace(seen, outcome="failed", error=str(failure))
        return replace(
            seen,
            stale_mappings=stale_mappings(side),
            guest_errors=side.machine.report().errors,
            switches=side.machine.report().switches,
        )


def _measure(scenario: Scenario, side: Side, moments: Moments, seen: Observation) -> Observation:
    run, machine, tally = scenario.document.run, side.machine, side.host.tally
    machine.take_failures()  # of what was before
    window = look_for_missed(side, run, moments)
    return replace(
        seen,
        outcome="measured" if window.failure is None else "failed",
        error=window.failure or "",
        lost_pages=window.pages,
        unmaps=tally.unmaps,
        flushes=tally.flushes,
        rounds=run.least_rounds,
        complaints=tuple(machine.take_failures()) if window.failure is None else (),
    )


def look_for_missed(side: Side, run: RunSpecification, moments: Moments) -> Window:
    """Track what is written for a window, and return what was missed.

    Raises:
        HostCallFailed: Nothing is tracked.
    """
    machine, before = side.machine, _Copy(side.block)
    machine.start_tracking(TrackingReason.DIRTY_RATE)
    side.host.tally.counting = True
    moments.arrive("tracking")
    found, failure = DirtyBitmap(side.block.pages), None
    for number in range(run.least_rounds):
        side.world.run_for(run.work_ms / 2)
        moments.arrive(f"round-{number}")
        side.world.run_for(run.work_ms / 2)
        harvested = machine.harvest()
        failure = failure or harvested.failure
        found.merge(harvested.cpu)
        found.merge(harvested.dma)
    changed = before.changed()
    side.host.tally.counting = False
    machine.stop_tracking()
    return Window(frozenset((changed - found).indexes().tolist()), failure)


class _Copy:
    """RAM as it was; what nobody had touched is not kept."""

    def __init__(self, block: RamBlock) -> None:
        self._block: Final = block
        self._runs: Final = [(first, block.words[first : first + count].copy()) for first, count in block.extents()]

    def changed(self) -> DirtyBitmap:
        """Return the pages whose bytes are others now."""
        block, known = self._block, DirtyBitmap(self._block.pages)
        changed = DirtyBitmap(block.pages)
        for first, rows in self._runs:
            known.set_run(first, len(rows))
            differs = (block.words[first : first + len(rows)] != rows).any(axis=1)
            changed.set_pages(np.flatnonzero(differs) + first)
        touched = DirtyBitmap(block.pages)
        for first, count in block.extents():
            touched.set_run(first, count)
        for first, count in (touched - known).runs():
            written = block.words[first : first + count].any(axis=1)
            changed.set_pages(np.flatnonzero(written) + first)
        return changed
