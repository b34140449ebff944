"""A migration rehearsed from its first round to the destination's first steps.

::

    work -> start -> tracking -> round 0, 1, ... -> pausing -> stop -> last round, digests -> device state
                                                                 '- oracle: which pages differ? -> load -> run

The three verdicts are taken apart: the stream ends, completed or failed; the verifier names the pages that are not
proven equal; the oracle compares the two RAMs byte by byte, when nothing is pending any more.
"""

from dataclasses import replace
from typing import Final
from uuid import UUID

from lab.observation import Observation
from lab.page_comparison import differing_pages
from lab.rehearsal.bulk_stream import BulkStream, StreamFailed
from lab.rehearsal.findings import blocked, first_sight
from lab.rehearsal.link import Link
from lab.rehearsal.moments import Moments
from lab.rehearsal.plan import plan_of, policy_of
from lab.rehearsal.side import Side, assembled_side, boot
from lab.rehearsal.stale_mappings import stale_mappings
from lab.scenario import Scenario
from vm_migration.transfer.convergence import (
    FIXED_STANDSTILL_MS,
    Fail,
    RoundMeasurement,
    Situation,
    StandstillCosts,
    SwitchOver,
    decide,
)
from vm_migration.transfer.errors import TransferError
from vmm.assembly.machine_state import InvalidState
from vmm.vfio.host_port import HostCallFailed

AFTERWARDS_MS: Final = 60
"""How long the machine runs when all is over, on the side that has it, so that its guest can complain."""
SETTLE_MS: Final = 40
_FAILURES: Final = (StreamFailed, TransferError, InvalidState, HostCallFailed)


def rehearse_migration(scenario: Scenario) -> Observation:
    """Move the scenario's machine, and return what was seen."""
    run = scenario.document.run
    with assembled_side(scenario) as source, assembled_side(scenario) as target:
        boot(source, run.seed)
        source.world.run_for(run.work_ms)
        moments = Moments(scenario.document.action, source)
        if moments.arrive("start"):
            source.world.run_for(SETTLE_MS)
        seen = first_sight(source, plan_of(source, scenario))
        if seen.blockers:
            return blocked(seen)
        return _Migration(scenario, source, target, moments, seen).run()


class _Migration:
    """One attempt; `seen` grows with it."""

    def __init__(self, scenario: Scenario, source: Side, target: Side, moments: Moments, seen: Observation) -> None:
        self.seen = seen
        self._run: Final = scenario.document.run
        self._source: Final = source
        self._target: Final = target
        self._moments: Final = moments
        self._began_ns: Final = source.world.now_ns
        self._link: Final = Link(source.world, self._run.bandwidth, self._run.sparse)
        self._stream: Final = BulkStream(source, target, self._link, UUID(int=self._run.seed))
        self._history: Final[list[RoundMeasurement]] = []
        self._switches: Final = source.machine.report().switches

    def run(self) -> Observation:
        """Run to the end of it, and let whoever has the machine then run it for a while."""
        try:
            self._precopy()
            self._switch_over()
            self.seen = replace(self.seen, outcome="completed", error="")
        except _FAILURES as failure:
            self.seen = replace(self.seen, outcome="failed", error=str(failure))
        self._count()
        owner = self._target if self.seen.outcome == "completed" and not self.seen.refused_pages else self._source
        self._run_on(owner)
        report = owner.machine.report()
        self.seen = replace(
            self.seen,
            guest_errors=report.errors,
            own_errors=report.own_errors,
            switches=report.switches - self._switches,
            complaints=self._complaints() if self.seen.outcome == "completed" else (),
        )
        return self.seen

    def _precopy(self) -> None:
        machine = self._source.machine
        machine.take_failures()  # of what was before
        machine.start_tracking()
        self._source.host.tally.counting = True
        self._stream.begin()
        self._moments.arrive("tracking")
        least = max(self._run.least_rounds, self._moments.last_round + 2)
        while True:
            self._history.append(self._stream.send_round(lambda number: self._moments.arrive(f"round-{number}")))
            devices = self._stream.devices
            costs = StandstillCosts(FIXED_STANDSTILL_MS, devices.left_bytes, 1.0)
            elapsed = self._ms_since(self._began_ns)
            situation = Situation(self._history, 0, elapsed, unacknowledged=devices.unacknowledged)
            match decide(situation, policy_of(self._run), costs):
                case Fail(message=message):
                    raise StreamFailed(message)
                case SwitchOver() if len(self._history) >= least:
                    return

    def _switch_over(self) -> None:
        source, target = self._source, self._target
        self._moments.arrive("pausing")
        stopped_ns = source.world.now_ns
        source.machine.stop(for_attempt=True)
        self._stream.send_last()
        self.seen = replace(
            self.seen,
            refused_pages=self._stream.refused_pages(),
            lost_pages=differing_pages(source.block, target.block),
        )
        state = source.machine.save()
        self._link.charge(len(state))
        target.machine.load(state)
        self.seen = replace(self.seen, standstill_ms=self._ms_since(stopped_ns) + FIXED_STANDSTILL_MS)

    def _count(self) -> None:
        tally = self._source.host.tally
        tally.counting = False
        stale = stale_mappings(self._source)
        self.seen = replace(
            self.seen, unmaps=tally.unmaps, flushes=tally.flushes, stale_mappings=stale, rounds=len(self._history)
        )

    def _complaints(self) -> tuple[str, ...]:
        return (*self._source.machine.take_failures(), *self._target.machine.take_failures())

    def _run_on(self, owner: Side) -> None:
        if owner is self._source:
            owner.machine.stop_tracking()
        if not owner.machine.running:
            owner.world.now_ns = max(owner.world.now_ns, self._source.world.now_ns)
            owner.start()
        owner.world.run_for(AFTERWARDS_MS)

    def _ms_since(self, moment_ns: int) -> float:
        return (self._source.world.now_ns - moment_ns) / 1e6
