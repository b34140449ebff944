"""What preflight expects, and the container whose pages stay dirty for ever."""

import msgspec

from source_agent.expectation import ASSUMED_RATE, Estimate, estimate
from source_agent.terms import Terms
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.control import Description, GuestFigures, Tracking

MIB = 1 << 20
TERMS = Terms(downtime_limit_ms=300, timeout_ms=60_000, force_on_timeout=False)


def specification() -> MachineSpecification:
    return parse_specification(
        b'{"name": "m", "memory": {"size": "1GiB"}, "viommu": {"model": "none"},'
        b'"guest": {"cpu_dirty_rate": "100MiB/s", "working_set": "256MiB"}}'
    )


DESCRIPTION = Description(
    machine="m", name="m", run_state="running", pause=0, epoch=1, controller=1, released=-1,
    ram_bytes=1024 * MIB, populated_bytes=512 * MIB, witness=True, boot_id="b", pid=1, instance="i", specification="{}",
    guest=GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=100.0 * MIB, dma_bytes_per_s=0.0),
    memory_kind="image", memory_files=(), memory_sha256="", blockers=(), warnings=(),
    tracking=Tracking(exact=True, mapped_bytes=0), device_state_bytes=4096,
)  # fmt: skip


def expected(
    description: Description = DESCRIPTION, terms: Terms = TERMS, *, rate: float | None = 1e9, witness: bool = True
) -> Estimate:
    return estimate(
        specification(),
        description,
        terms,
        data_bytes=description.populated_bytes,
        witness=witness,
        measured_rate=rate,
        hash_bytes_per_s=2e9,
    )


def test_a_rate_that_was_never_measured_is_assumed_and_said() -> None:
    found = expected(rate=None)
    assert [warning.code for warning in found.warnings] == ["rate-assumed"]
    assert f"{ASSUMED_RATE / 1e6:.0f}" in found.warnings[0].message
    assert expected().warnings == ()


def test_a_limit_of_bandwidth_makes_it_longer() -> None:
    slow = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=200 * MIB)
    assert expected(terms=slow).forecast.total_ms > expected().forecast.total_ms


def test_what_stays_dirty_for_ever_blocks_before_anything_starts() -> None:
    tracking = Tracking(exact=False, mapped_bytes=1024 * MIB)
    found = expected(msgspec.structs.replace(DESCRIPTION, tracking=tracking))
    assert [blocker.code for blocker in found.blockers] == ["standstill-over-limit"]
    wide = msgspec.structs.replace(TERMS, downtime_limit_ms=30_000)
    assert expected(msgspec.structs.replace(DESCRIPTION, tracking=tracking), wide).blockers == ()


def test_without_a_witness_hashing_counts_into_the_standstill() -> None:
    assert expected(witness=False).forecast.downtime_ms > expected().forecast.downtime_ms
    unverified = msgspec.structs.replace(TERMS, verify="none")
    assert expected(witness=False, terms=unverified).forecast.downtime_ms == expected().forecast.downtime_ms


def test_a_paused_machine_dirties_nothing() -> None:
    paused = msgspec.structs.replace(DESCRIPTION, run_state="paused")
    assert expected(paused).forecast.total_ms < expected().forecast.total_ms
