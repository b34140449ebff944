"""What an attempt would take, by the forecast that the agents give (source_agent.expectation says the same of theirs).

Nothing is hashed at the pause here in virtual time, and nobody waits for memory: what is left is what travels.
"""

from dataclasses import dataclass

from lab.rehearsal.side import Side
from lab.scenario import RunSpecification, Scenario
from vm_migration.transfer.convergence import FIXED_STANDSTILL_MS, ConvergencePolicy, StandstillCosts
from vm_migration.transfer.forecast import (
    Forecast,
    PerpetualStandstill,
    Workload,
    expected,
    standstill_expected,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The forecast, and what is said of trackers that report everything for ever."""

    forecast: Forecast
    standstill: PerpetualStandstill


def policy_of(run: RunSpecification) -> ConvergencePolicy:
    """Return what the scenario's user allows."""
    return ConvergencePolicy(downtime_limit_ms=run.downtime_limit_ms, timeout_ms=run.timeout_ms)


def plan_of(side: Side, scenario: Scenario, ram_bytes: int | None = None) -> Plan:
    """Forecast the move of a machine, by default of as much RAM as it has."""
    run, specification = scenario.document.run, scenario.machine
    ram = side.block.size if ram_bytes is None else ram_bytes
    report = side.machine.report()
    buffers = sum(device.dma_rate for device in specification.device)
    workload = Workload(
        data_bytes=ram if run.sparse else side.block.populated_bytes(),
        dirty_bytes_per_s=report.dirty_bytes_per_s + report.dma_bytes_per_s,
        dirty_span_bytes=min(specification.guest.working_set + buffers, ram),
        always_dirty_bytes=side.machine.always_dirty_bytes(ram_bytes),
    )
    costs = StandstillCosts(FIXED_STANDSTILL_MS, side.machine.device_state_bytes().total, 1.0)
    policy = policy_of(run)
    return Plan(
        expected(workload, run.bandwidth, 0.0, policy, costs),
        standstill_expected(workload, run.bandwidth, policy.downtime_limit_ms, costs),
    )
