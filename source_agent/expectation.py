"""What an attempt is expected to take, from what this agent has measured; pure.

The rate of the wire is what the last attempts to that destination reached, or, before the first, ASSUMED_RATE, and what
a standstill takes beside its work is what it took then, or is assumed: a warning says so. Where pages may be compressed
the wire carries more of them: as many as codecs made of some of the machine's pages just now, where somebody asked for
that, or else as other machines' pages became fewer of late. What the machine dirties is likewise what was measured just
now, or what its guest says. Everything else is asked of the machine. The profiles differ in what convergence lets them
do, and in nothing else.
"""

from dataclasses import dataclass
from typing import Final

from source_agent.terms import DIRECT, SEALED, Terms
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, TRANSPORT_NOT_OFFERED
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
ASSUMED_FIXED_OF_STREAM_MS: Final = Range(30.0, 100.0, 300.0)
"""A QEMU goes on from its gate, closes its connections and starts at its destination: more steps, each of its own."""
NOTHING_SAVED: Final = Range.exactly(1.0)
UNMEASURED: Final = "dirty-rate-assumed"
ASSUMED_AROUND_MS: Final = Range(20.0, 100.0, 500.0)
ASSUMED_ROUND_MS: Final = Range(1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of a running machine in a moment."""

    window_ms: float
    lines: tuple[tuple[int, ...], ...]
    """Distinct bytes that were written: in slices of the window first, in the whole last, as `measured` takes them.

    None where only a rate is known.
    """
    data_bytes: Range
    """RAM that holds something other than zeros."""
    cpu_share: float = 1.0
    """Of what was written, what only vCPUs wrote."""
    packings: tuple[Packing, ...] = ()
    """What codecs make of the pages that hold something; none where none does, or no codec has them."""
    bytes_per_s: float = 0.0
    """Of one that has no lines."""

    def dirtying(self, span_bytes: int) -> Dirtying:
        """Return what it dirties, given the most that it can."""
        if not self.lines:
            return Dirtying.told(self.bytes_per_s, span_bytes)
        return measured(self.window_ms, self.lines, span_bytes)


@dataclass(frozen=True, slots=True)
class Known:
    """What this agent has measured: None where it has not yet."""

    hash_bytes_per_s: float
    """What this process hashes by itself."""
    hashed_bytes_per_s: float | None = None
    """How fast all of a machine's memory was hashed at both ends, while it stood still.

    It is told, and decides nothing: one attempt on hosts that had too much to do must not keep all later ones from
    moving.
    """
    link_bytes_per_s: Range | None = None
    fixed_ms: Range | None = None
    around_ms: Range | None = None
    round_ms: Range | None = None
    device_bytes_per_s: float = DEVICE_BYTES_PER_S
    pages_per_wire: Range = NOTHING_SAVED
    """Bytes of pages for each byte on the wire, where they may be compressed, of machines that were moved."""
    packed_bytes_per_s: Range | None = None
    """What came across of pages that codecs made fewer, to that destination."""
    sample: Sample | None = None
    kept_from_direct: Observation | None = None
    """What keeps this host's machines from connecting to other hosts' by themselves."""


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
    sends_itself = description.moves == "stream"  # past every codec of ours
    link = wire if sends_itself else _page_rate(wire, terms, known)
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
    standstill = standstill.told_as(max(0.0, took_ms))  # whether it fits is decided without that
    policy = terms.convergence()
    return Estimate(
        profiles={name: predicted_under(profile, inputs, policy, costs) for name, profile in PROFILES.items()},
        link_bytes_per_s=wire.likely,
        dirty_bytes_per_s=inputs.dirtying.bytes_per_s,
        blockers=(*_of_transport(description, terms, known), *_blockers(standstill)),
        warnings=(*_warnings(known, wire, inputs.fixed_ms), *_of_unmeasured(description, known)),
    )


def features_needed(description: Description, terms: Terms) -> tuple[str, ...]:
    """Return what a destination has to offer for a machine under these terms, beyond their transport."""
    return (DIRECT_MACHINE_STREAM,) if description.moves == "stream" and terms.transport == DIRECT else ()


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
        return page_rate(wire, known.sample.packings, terms.compression, came=known.packed_bytes_per_s)
    return wire if terms.compression == "none" else wire.product(known.pages_per_wire)


def _inputs(
    specification: MachineSpecification, description: Description, terms: Terms, known: Known, link: Range
) -> Inputs:
    hashed_at_pause = terms.verify == "full" or (terms.verify == "auto" and not description.witness)
    sample, populated = known.sample, float(description.populated_bytes)
    unhashed_bytes = description.ram_bytes if hashed_at_pause else 0
    return Inputs(
        data_bytes=sample.data_bytes if sample else Range.exactly(populated),
        dirtying=_dirtying(specification, description, sample),
        link_bytes_per_s=link,
        prepare_ms=Range.around(prepare_ms_expected(description.ram_bytes), PREPARE_SPREAD),
        around_ms=(known.around_ms or ASSUMED_AROUND_MS).plus(_zeros_ms(description, known)),
        fixed_ms=(known.fixed_ms or _fixed_ms_assumed(description)).plus(_hashed_later_ms(unhashed_bytes, known)),
        round_ms=known.round_ms or ASSUMED_ROUND_MS,
        always_dirty_bytes=0 if description.tracking.exact else description.tracking.mapped_bytes,
        unhashed_bytes=unhashed_bytes,
        cpu_share=sample.cpu_share if sample else _cpu_share(description),
    )


def _fixed_ms_assumed(description: Description) -> Range:
    return ASSUMED_FIXED_OF_STREAM_MS if description.moves == "stream" else ASSUMED_FIXED_MS


def _hashed_later_ms(unhashed_bytes: int, known: Known) -> float:
    """Return how much longer than this process by itself both ends took of late to hash so many bytes."""
    took = unhashed_bytes * 1000 / known.hashed_bytes_per_s if known.hashed_bytes_per_s else 0.0
    return max(0.0, took - unhashed_bytes * 1000 / known.hash_bytes_per_s)


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
    if description.moves == "stream":
        span_bytes = description.ram_bytes  # nobody knows its guest's working set
    if sample is not None:
        return sample.dirtying(span_bytes)
    guest = description.guest
    return Dirtying.told(guest.dirty_bytes_per_s + guest.dma_bytes_per_s, span_bytes)


def _warnings(known: Known, wire: Range, fixed_ms: Range) -> tuple[Observation, ...]:
    if known.link_bytes_per_s is not None:
        return ()
    text = f"No attempt to this destination has been measured yet; {wire.likely / 1e6:.0f} MB/s is assumed"
    if known.fixed_ms is None:
        text += f", and {fixed_ms.likely:.0f} ms of standstill beside what it sends"
    return (Observation(code="rate-assumed", message=text),)


def _of_unmeasured(description: Description, known: Known) -> tuple[Observation, ...]:
    """Say of a machine that tells nothing of its guest that it was not measured."""
    if description.moves == "pages" or description.run_state != "running" or known.sample is not None:
        return ()
    text = "What the machine writes was not measured now, and nothing tells it: it is taken to write nothing"
    return (Observation(code=UNMEASURED, message=text),)


def _of_transport(description: Description, terms: Terms, known: Known) -> tuple[Observation, ...]:
    if description.moves == "pages":
        return ()
    if terms.transport == SEALED:
        text = (
            "The machine sends its own stream, which agents carry (grpc) or its process does (direct): nobody seals it"
        )
        return (Observation(code=TRANSPORT_NOT_OFFERED, message=text),)
    if terms.transport == DIRECT and known.kept_from_direct is not None:
        return (known.kept_from_direct,)
    return ()


def _blockers(standstill: PerpetualStandstill) -> tuple[Observation, ...]:
    if standstill.fits:
        return ()
    return (Observation(code="standstill-over-limit", message=standstill.message),)
