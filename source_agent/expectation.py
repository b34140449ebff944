"""What an attempt is expected to take, from what this agent has measured; pure.

The rate of the wire is what the last attempts to that destination reached, or, before the first, ASSUMED_RATE, and what
a standstill takes beside its work is what it took then, or is assumed: a warning says so. Where pages may be compressed
the wire carries more of them: as many as codecs made of some of the machine's pages just now, where somebody asked for
that, or else as other machines' pages became fewer of late. What the machine dirties is likewise what was measured just
now, or what its guest says. Everything else is asked of the machine. The profiles differ in what convergence lets them
do, and in nothing else.
"""

from dataclasses import dataclass, replace
from typing import Final

from source_agent.terms import GRPC, Terms
from vm_migration.transfer.convergence import DEVICE_BYTES_PER_S, FIXED_STANDSTILL_MS, StandstillCosts
from vm_migration.transfer.dirtying import Dirtying, measured
from vm_migration.transfer.forecast import (
    PREPARE_SPREAD,
    PerpetualStandstill,
    prepare_ms_expected,
    standstill_expected,
)
from vm_migration.transfer.page_rate import Packing, page_rate
from vm_migration.transfer.prediction import Inputs, Prediction
from vm_migration.transfer.profiles import PROFILES
from vm_migration.transfer.ranges import Range
from vm_migration.transfer.throttled_prediction import predicted_under
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Description, Observation

ASSUMED_RATE: Final = 400_000_000.0
"""Bytes per second; what one stream moves over 10 Gbit/s or loopback on a small host, on the safe side."""
ASSUMED_LINK: Final = Range(100_000_000.0, ASSUMED_RATE, 1_600_000_000.0)
"""From a link of 1 Gbit/s to what one process can send."""
ASSUMED_FIXED_MS: Final = Range(15.0, FIXED_STANDSTILL_MS, 150.0)
NOTHING_SAVED: Final = Range.exactly(1.0)
ASSUMED_AROUND_MS: Final = Range(20.0, 100.0, 500.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a running machine in a moment."""

    window_ms: float
    lines: tuple[tuple[int, ...], ...]
    """Distinct bytes that were written: in slices of the window first, in the whole last, as `measured` takes them."""
    data_bytes: Range
    """RAM that holds something other than zeros."""
    cpu_share: float = 1.0
    """Of what was written, what only vCPUs wrote."""
    packings: tuple[Packing, ...] = ()
    """What codecs make of the pages that hold something; none where none does."""

    def dirtying(self, span_bytes: int) -> Dirtying:
        """Return what it dirties, given the most that it can."""
        return measured(self.window_ms, self.lines, span_bytes)


@dataclass(frozen=True, slots=True)
class Known:
    """What this agent has measured: None where it has not yet."""

    hash_bytes_per_s: float
    link_bytes_per_s: Range | None = None
    fixed_ms: Range | None = None
    around_ms: Range | None = None
    device_bytes_per_s: float = DEVICE_BYTES_PER_S
    pages_per_wire: Range = NOTHING_SAVED
    """Bytes of pages for each byte on the wire, where they may be compressed, of machines that were moved."""
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected, on which figures that rests, and what it says against starting."""

    profiles: dict[str, Prediction]
    """Under each profile, by its name; they differ only where pre-copy alone does not converge."""
    link_bytes_per_s: float
    dirty_bytes_per_s: float
    blockers: tuple[Observation, ...]
    warnings: tuple[Observation, ...]


def estimate(specification: MachineSpecification, description: Description, terms: Terms, known: Known) -> Estimate:
    """Return what an attempt under these terms will take, and whether its standstill can fit the limit."""
    wire = known.link_bytes_per_s or ASSUMED_LINK
    if terms.max_bandwidth_bytes_per_s:
        wire = wire.at_most(Range.exactly(terms.max_bandwidth_bytes_per_s))
    link = _page_rate(wire, terms, known)
    inputs = _inputs(specification, description, terms, known, link)
    costs = StandstillCosts(
        decided_with(known.fixed_ms, terms.downtime_limit_ms),
        description.device_state_bytes,
        known.hash_bytes_per_s,
        known.device_bytes_per_s,
    )
    moved = inputs.workload(inputs.data_bytes.likely, inputs.dirtying.likely)
    standstill = standstill_expected(moved, link.likely, terms.downtime_limit_ms, costs)
    took_ms = standstill.standstill_ms + inputs.fixed_ms.likely - costs.fixed_ms
    standstill = replace(standstill, standstill_ms=max(0.0, took_ms))  # whether it fits is decided without that
    policy = terms.convergence()
    return Estimate(
        profiles={name: predicted_under(profile, inputs, policy, costs) for name, profile in PROFILES.items()},
        link_bytes_per_s=wire.likely,
        dirty_bytes_per_s=inputs.dirtying.bytes_per_s,
        blockers=(*_of_transport(description, terms), *_blockers(standstill)),
        warnings=_warnings(known, wire),
    )


def decided_with(fixed_ms: Range | None, limit_ms: float) -> float:
    """Return what a standstill takes beside its work, in milliseconds, as the decision to stop counts it.

    What it took of late, but no less than the least that it ever takes, and not more than a third of the limit where
    that is more than what is assumed before the first attempt: one attempt on hosts that had too much to do must not
    keep all later ones from moving.
    """
    if fixed_ms is None:
        return FIXED_STANDSTILL_MS
    return max(ASSUMED_FIXED_MS.low, min(fixed_ms.likely, max(FIXED_STANDSTILL_MS, limit_ms / 3)))


def _page_rate(wire: Range, terms: Terms, known: Known) -> Range:
    """Return the bytes of pages that come across in a second."""
    if known.sample is not None:
        return page_rate(wire, known.sample.packings, terms.compression)
    return wire if terms.compression == "none" else wire.product(known.pages_per_wire)


def _inputs(
    specification: MachineSpecification, description: Description, terms: Terms, known: Known, link: Range
) -> Inputs:
    hashed_at_pause = terms.verify == "full" or (terms.verify == "auto" and not description.witness)
    sample, populated = known.sample, float(description.populated_bytes)
    return Inputs(
        data_bytes=sample.data_bytes if sample else Range.exactly(populated),
        dirtying=_dirtying(specification, description, sample),
        link_bytes_per_s=link,
        prepare_ms=Range.around(prepare_ms_expected(description.ram_bytes), PREPARE_SPREAD),
        around_ms=(known.around_ms or ASSUMED_AROUND_MS).plus(_zeros_ms(description, known)),
        fixed_ms=known.fixed_ms or ASSUMED_FIXED_MS,
        always_dirty_bytes=0 if description.tracking.exact else description.tracking.mapped_bytes,
        unhashed_bytes=description.ram_bytes if hashed_at_pause else 0,
        cpu_share=sample.cpu_share if sample else _cpu_share(description),
    )


def _zeros_ms(description: Description, known: Known) -> float:
    """Return how long it takes to see that pages are zero, which is all that is done with them."""
    data_bytes = known.sample.data_bytes.likely if known.sample else description.populated_bytes
    return max(0.0, description.populated_bytes - data_bytes) * 1000 / known.hash_bytes_per_s


def _cpu_share(description: Description) -> float:
    guest = description.guest
    every = guest.dirty_bytes_per_s + guest.dma_bytes_per_s
    return guest.dirty_bytes_per_s / every if every > 0 else 1.0


def _dirtying(specification: MachineSpecification, description: Description, sample: Sample | None) -> Dirtying:
    if description.run_state != "running":
        return Dirtying.none()
    buffers = sum(device.dma_rate for device in specification.device)
    span_bytes = min(specification.guest.working_set + buffers, description.ram_bytes)
    if sample is not None:
        return sample.dirtying(span_bytes)
    guest = description.guest
    return Dirtying.told(guest.dirty_bytes_per_s + guest.dma_bytes_per_s, span_bytes)


def _warnings(known: Known, wire: Range) -> tuple[Observation, ...]:
    if known.link_bytes_per_s is not None:
        return ()
    text = f"No attempt to this destination has been measured yet; {wire.likely / 1e6:.0f} MB/s is assumed"
    if known.fixed_ms is None:
        text += f", and {ASSUMED_FIXED_MS.likely:.0f} ms of standstill beside what it sends"
    return (Observation(code="rate-assumed", message=text),)


def _of_transport(description: Description, terms: Terms) -> tuple[Observation, ...]:
    if description.moves == "pages" or terms.transport == GRPC:
        return ()
    text = f"The machine sends its own stream, which travels by {GRPC} and not by {terms.transport}"
    return (Observation(code="transport-not-offered", message=text),)


def _blockers(standstill: PerpetualStandstill) -> tuple[Observation, ...]:
    if standstill.fits:
        return ()
    return (Observation(code="standstill-over-limit", message=standstill.message),)
