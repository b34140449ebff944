"""What an attempt is expected to take, from what this agent has measured; pure.

The rate of the link is the one that the last attempt to that destination reached, or, before the first, ASSUMED_RATE,
which a warning then says. Everything else is asked of the machine.
"""

from dataclasses import dataclass
from typing import Final

from source_agent.terms import Terms
from vm_migration.transfer.convergence import FIXED_STANDSTILL_MS, StandstillCosts
from vm_migration.transfer.forecast import (
    Forecast,
    PerpetualStandstill,
    Workload,
    expected,
    prepare_ms_expected,
    standstill_expected,
)
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Description, Observation

ASSUMED_RATE: Final = 400_000_000.0
"""Bytes per second; what one stream moves over 10 Gbit/s or loopback on a small host, on the safe side."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected, and what it says against starting."""

    forecast: Forecast
    blockers: tuple[Observation, ...]
    warnings: tuple[Observation, ...]


def estimate(
    specification: MachineSpecification,
    description: Description,
    terms: Terms,
    *,
    data_bytes: int,
    witness: bool,
    measured_rate: float | None,
    hash_bytes_per_s: float,
) -> Estimate:
    """Return what an attempt under these terms will take, and whether its standstill can fit the limit."""
    rate = measured_rate or ASSUMED_RATE
    if terms.max_bandwidth_bytes_per_s:
        rate = min(rate, terms.max_bandwidth_bytes_per_s)
    costs = StandstillCosts(FIXED_STANDSTILL_MS, description.device_state_bytes, hash_bytes_per_s)
    workload = _workload(specification, description, terms, data_bytes, witness=witness)
    prepare_ms = prepare_ms_expected(description.ram_bytes)
    forecast = expected(workload, rate, prepare_ms, terms.convergence(), costs)
    standstill = standstill_expected(workload, rate, terms.downtime_limit_ms, costs)
    warnings = []
    if measured_rate is None:
        text = f"No attempt to this destination has been measured yet; {rate / 1e6:.0f} MB/s is assumed"
        warnings.append(Observation(code="rate-assumed", message=text))
    return Estimate(forecast, _blockers(standstill), tuple(warnings))


def _blockers(standstill: PerpetualStandstill) -> tuple[Observation, ...]:
    if standstill.fits:
        return ()
    return (Observation(code="standstill-over-limit", message=standstill.message),)


def _workload(
    specification: MachineSpecification, description: Description, terms: Terms, data_bytes: int, *, witness: bool
) -> Workload:
    running = description.run_state == "running"
    buffers = sum(device.dma_rate for device in specification.device)
    guest = description.guest
    hashed_at_pause = terms.verify == "full" or (terms.verify == "auto" and not witness)
    return Workload(
        data_bytes=data_bytes,
        dirty_bytes_per_s=guest.dirty_bytes_per_s + guest.dma_bytes_per_s if running else 0.0,
        dirty_span_bytes=min(specification.guest.working_set + buffers, description.ram_bytes),
        always_dirty_bytes=0 if description.tracking.exact else description.tracking.mapped_bytes,
        unhashed_bytes=description.ram_bytes if hashed_at_pause else 0,
    )
