"""What preflight expects, and the container whose pages stay dirty for ever."""

from dataclasses import replace

import msgspec
import pytest

from source_agent.expectation import (
    ASSUMED_FIXED_MS,
    ASSUMED_FIXED_OF_STREAM_MS,
    ASSUMED_LINK,
    ASSUMED_RATE,
    Estimate,
    Known,
    Sample,
    decided_with,
    estimate,
)
from source_agent.terms import Terms
from vm_migration.transfer.convergence import FIXED_STANDSTILL_MS
from vm_migration.transfer.frames import Codec
from vm_migration.transfer.page_rate import Packing
from vm_migration.transfer.ranges import Range
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.control import Description, GuestFigures, Observation, Tracking

MIB = 1 << 20
TERMS = Terms(downtime_limit_ms=300, timeout_ms=60_000, force_on_timeout=False)
KNOWN = Known(
    hash_bytes_per_s=2e9,
    link_bytes_per_s=Range.around(1e9, 0.1),
    fixed_ms=Range.around(40, 0.1),
    around_ms=Range.around(100, 0.1),
)


LZ4 = Packing(Codec.LZ4, Range.exactly(0.5), 1e10)


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


def expected(description: Description = DESCRIPTION, terms: Terms = TERMS, known: Known = KNOWN) -> Estimate:
    return estimate(specification(), description, terms, known)


def sample(data_bytes: int, a_slice: int) -> Sample:
    """Return what was seen of a machine that writes ever new pages."""
    lines = tuple((a_slice << step,) * (8 >> step) for step in range(4))
    return Sample(1000.0, lines, Range.exactly(data_bytes))


def test_a_rate_that_was_never_measured_is_assumed_and_said() -> None:
    found = expected(known=Known(hash_bytes_per_s=2e9))
    assert [warning.code for warning in found.warnings] == ["rate-assumed"]
    assert f"{ASSUMED_RATE / 1e6:.0f} MB/s" in found.warnings[0].message
    assert f"{ASSUMED_FIXED_MS.likely:.0f} ms" in found.warnings[0].message
    assert found.link_bytes_per_s == ASSUMED_RATE
    assert expected().warnings == ()


def test_what_another_destination_showed_is_not_called_assumed() -> None:
    found = expected(known=replace(KNOWN, link_bytes_per_s=None))
    assert "ms" not in found.warnings[0].message


def test_what_is_assumed_is_known_less_well_than_what_was_measured() -> None:
    assumed = replace(KNOWN, link_bytes_per_s=ASSUMED_LINK, fixed_ms=ASSUMED_FIXED_MS)
    wide, narrow = expected(known=assumed).profiles["balanced"], expected().profiles["balanced"]
    assert wide.total_ms.high - wide.total_ms.low > narrow.total_ms.high - narrow.total_ms.low
    assert wide.downtime_ms.high > narrow.downtime_ms.high


def test_a_limit_of_bandwidth_makes_it_longer() -> None:
    slow = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=200 * MIB)
    found = expected(terms=slow)
    assert found.link_bytes_per_s == 200 * MIB
    assert found.profiles["balanced"].total_ms.likely > expected().profiles["balanced"].total_ms.likely


def moving_ms(terms: Terms = TERMS, known: Known = KNOWN) -> float:
    return expected(terms=terms, known=known).profiles["balanced"].total_ms.likely


def test_a_wire_carries_more_pages_where_they_became_less_on_it() -> None:
    slow = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=200 * MIB)
    squeezed = replace(KNOWN, pages_per_wire=Range(1.0, 3.0, 4.0))
    assert expected(terms=slow, known=squeezed).link_bytes_per_s == 200 * MIB
    assert moving_ms(slow, squeezed) == moving_ms(msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=600 * MIB))
    plain = msgspec.structs.replace(slow, compression="none")
    assert moving_ms(plain, squeezed) == moving_ms(plain)


def test_what_codecs_make_of_its_own_pages_counts_more_than_what_they_made_of_others() -> None:
    squeezed = replace(KNOWN, pages_per_wire=Range(1.0, 3.0, 4.0))
    random = replace(squeezed, sample=sample(512 * MIB, 0))
    text = replace(random, sample=replace(sample(512 * MIB, 0), packings=(LZ4,)))
    assert moving_ms(known=random) == moving_ms(known=replace(random, pages_per_wire=Range.exactly(1.0)))
    assert moving_ms(known=random) - moving_ms(known=text) == pytest.approx(512 * MIB / 1e6 / 2, rel=0.01)


def test_the_decision_counts_what_a_standstill_took_of_late_and_never_less_than_the_least() -> None:
    assert decided_with(None, 300) == FIXED_STANDSTILL_MS
    assert decided_with(Range(20, 25, 30), 300) == 25
    assert decided_with(Range(0, 0, 5), 300) == ASSUMED_FIXED_MS.low
    assert decided_with(Range(80, 90, 99), 300) == 90


def test_a_standstill_that_once_took_long_does_not_keep_later_attempts_from_moving() -> None:
    once = replace(KNOWN, fixed_ms=Range.exactly(5000))
    for limit in (60, 150, 300, 900):
        found = expected(terms=msgspec.structs.replace(TERMS, downtime_limit_ms=limit), known=once)
        assert found.blockers == ()
        assert found.profiles["balanced"].downtime_ms.likely > 4900, "which is said all the same"


def test_the_limit_that_would_be_needed_is_no_less_than_the_standstill_that_is_told() -> None:
    """What standstills took of late is told, and counts in the decision only up to a third of the limit."""
    tracking = Tracking(exact=False, mapped_bytes=1024 * MIB)
    described = msgspec.structs.replace(DESCRIPTION, tracking=tracking)
    (blocker,) = expected(described, known=replace(KNOWN, fixed_ms=Range.exactly(5000))).blockers
    told, needed = (int(word) for word in blocker.message.split() if word.isdecimal())
    assert needed > told > 5000
    wide = msgspec.structs.replace(TERMS, downtime_limit_ms=needed)
    assert expected(described, wide, replace(KNOWN, fixed_ms=Range.exactly(5000))).blockers == ()


def test_what_stays_dirty_for_ever_blocks_before_anything_starts() -> None:
    tracking = Tracking(exact=False, mapped_bytes=1024 * MIB)
    found = expected(msgspec.structs.replace(DESCRIPTION, tracking=tracking))
    assert [blocker.code for blocker in found.blockers] == ["standstill-over-limit"]
    downtime_ms = found.profiles["balanced"].downtime_ms.likely
    assert f"about {downtime_ms:.0f} ms" in found.blockers[0].message
    wide = msgspec.structs.replace(TERMS, downtime_limit_ms=30_000)
    assert expected(msgspec.structs.replace(DESCRIPTION, tracking=tracking), wide).blockers == ()


def test_without_a_witness_hashing_counts_into_the_standstill() -> None:
    def downtime(description: Description, terms: Terms = TERMS) -> float:
        return expected(description, terms).profiles["balanced"].downtime_ms.likely

    unwitnessed = msgspec.structs.replace(DESCRIPTION, witness=False)
    assert downtime(unwitnessed) > downtime(DESCRIPTION)
    unverified = msgspec.structs.replace(TERMS, verify="none")
    assert downtime(unwitnessed, unverified) == downtime(DESCRIPTION)


def test_a_paused_machine_dirties_nothing() -> None:
    paused = msgspec.structs.replace(DESCRIPTION, run_state="paused")
    found = expected(paused)
    assert found.dirty_bytes_per_s == 0
    assert found.profiles["balanced"].total_ms.likely < expected().profiles["balanced"].total_ms.likely


def test_what_was_measured_counts_more_than_what_the_guest_says() -> None:
    found = expected(known=replace(KNOWN, sample=sample(512 * MIB, 2 * MIB)))
    assert found.dirty_bytes_per_s == pytest.approx(16 * MIB)
    assert expected().dirty_bytes_per_s == pytest.approx(100 * MIB)
    assert found.profiles["balanced"].total_ms.likely < expected().profiles["balanced"].total_ms.likely


def test_pages_that_are_zero_are_expected_to_take_no_time_but_to_be_looked_at() -> None:
    half = replace(KNOWN, sample=sample(256 * MIB, 0))
    whole = replace(KNOWN, sample=sample(512 * MIB, 0))
    saved = (
        expected(known=whole).profiles["balanced"].total_ms.likely
        - expected(known=half).profiles["balanced"].total_ms.likely
    )
    assert saved == pytest.approx(256 * MIB / 1e6 - 256 * MIB / 2e6, rel=0.01)


def test_profiles_differ_only_where_sending_alone_is_not_enough() -> None:
    calm = expected().profiles
    assert calm["gentle"] == calm["balanced"] == calm["urgent"]
    slow = replace(KNOWN, link_bytes_per_s=Range.around(80e6, 0.05))
    patient = msgspec.structs.replace(TERMS, timeout_ms=600_000)
    busy = expected(known=slow, terms=patient).profiles
    assert [busy[name].converges for name in ("gentle", "balanced", "urgent")] == [False, True, True]
    assert busy["urgent"].total_ms.likely < busy["balanced"].total_ms.likely


def test_devices_that_write_without_vcpus_are_not_expected_to_be_throttled() -> None:
    guest = GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=100.0 * MIB)
    slow = replace(KNOWN, link_bytes_per_s=Range.around(80e6, 0.05))
    patient = msgspec.structs.replace(TERMS, timeout_ms=600_000)
    found = expected(msgspec.structs.replace(DESCRIPTION, guest=guest), patient, slow).profiles
    assert not any(each.converges for each in found.values())


@pytest.mark.parametrize("transport", ["grpc", "direct", "sealed"])
def test_the_stream_of_a_machine_that_sends_itself_is_sealed_by_nobody(transport: str) -> None:
    terms = msgspec.structs.replace(TERMS, transport=transport)
    codes = {
        moves: {each.code for each in expected(msgspec.structs.replace(DESCRIPTION, moves=moves), terms).blockers}
        for moves in ("pages", "stream")
    }
    assert "transport-not-offered" not in codes["pages"]
    assert ("transport-not-offered" in codes["stream"]) is (transport == "sealed")


@pytest.mark.parametrize("transport", ["grpc", "direct"])
@pytest.mark.parametrize("moves", ["pages", "stream"])
def test_what_keeps_a_host_s_machines_from_sending_themselves_directly_is_told(transport: str, moves: str) -> None:
    terms = msgspec.structs.replace(TERMS, transport=transport)
    machine = msgspec.structs.replace(DESCRIPTION, moves=moves)
    kept = Observation(code="subject-unlisted", message="host-a: Its subject is odd")
    found = expected(machine, terms, replace(KNOWN, kept_from_direct=kept)).blockers
    assert (kept in found) is ((moves, transport) == ("stream", "direct"))


def test_what_a_machine_sends_itself_is_packed_by_no_codec_of_ours() -> None:
    packed = replace(KNOWN, pages_per_wire=Range.exactly(4.0))
    itself = msgspec.structs.replace(DESCRIPTION, moves="stream")
    total = {known: expected(itself, known=known).profiles["gentle"].total_ms for known in (KNOWN, packed)}
    assert total[KNOWN] == total[packed]


def test_more_is_assumed_of_the_standstill_of_a_machine_that_sends_itself() -> None:
    unknown = Known(hash_bytes_per_s=2e9)
    itself = msgspec.structs.replace(DESCRIPTION, moves="stream")
    stream, as_pages = (
        expected(itself, known=unknown),
        expected(itself, known=replace(unknown, fixed_ms=ASSUMED_FIXED_MS)),
    )
    assert f"{ASSUMED_FIXED_OF_STREAM_MS.likely:.0f} ms" in stream.warnings[0].message
    more = stream.profiles["gentle"].downtime_ms.likely - as_pages.profiles["gentle"].downtime_ms.likely
    assert more == pytest.approx(ASSUMED_FIXED_OF_STREAM_MS.likely - ASSUMED_FIXED_MS.likely)


def test_memory_is_hashed_as_fast_as_it_was_of_late() -> None:
    whole = msgspec.structs.replace(DESCRIPTION, witness=False)
    found = {
        rate: expected(whole, known=replace(KNOWN, hashed_bytes_per_s=rate)).profiles["gentle"].downtime_ms.likely
        for rate in (None, 1e9)
    }
    slower_ms = whole.ram_bytes * 1000 * (1 / 1e9 - 1 / KNOWN.hash_bytes_per_s)
    assert found[1e9] - found[None] == pytest.approx(slower_ms)


def test_one_attempt_whose_memory_was_hashed_slowly_keeps_no_later_one_from_moving() -> None:
    whole = msgspec.structs.replace(DESCRIPTION, witness=False)
    terms = msgspec.structs.replace(TERMS, downtime_limit_ms=1_000)
    assert not expected(whole, terms).blockers
    busy = expected(whole, terms, replace(KNOWN, hashed_bytes_per_s=1e8))
    assert not busy.blockers
    assert busy.profiles["gentle"].downtime_ms.likely > 10_000, "it is told all the same"


def test_a_machine_that_tells_nothing_of_its_guest_is_said_not_to_be_measured() -> None:
    itself = msgspec.structs.replace(DESCRIPTION, moves="stream")
    rate = Sample(1000.0, (), Range.exactly(512 * MIB), bytes_per_s=200.0 * MIB)
    assert "dirty-rate-assumed" in {each.code for each in expected(itself).warnings}
    measured = expected(itself, known=replace(KNOWN, sample=rate))
    assert "dirty-rate-assumed" not in {each.code for each in measured.warnings}
    assert measured.dirty_bytes_per_s == 200.0 * MIB
    paused = msgspec.structs.replace(itself, run_state="paused")
    assert "dirty-rate-assumed" not in {each.code for each in expected(paused).warnings}
