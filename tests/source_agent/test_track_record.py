"""What attempts showed is what the next one is expected to take."""

from dataclasses import replace

import pytest

from source_agent.progress import Outcome, Progress
from source_agent.track_record import Shown, TrackRecord, TrackRecords, shown_by
from vm_migration.transfer.convergence import RoundMeasurement
from vm_migration.transfer.downtime import Downtime
from vm_migration.transfer.ranges import Range
from vm_migration.transfer.round_log import RoundLog

MIB = 1 << 20
DOWNTIME = Downtime(10_000, 30_000, 5_000, 10_000, 5_000, 20_000, 0, shared_clock=True)


def measured(number: int, mib: float, ms: float) -> RoundMeasurement:
    pages = round(mib * 256)
    return RoundMeasurement(number, pages, pages, 0, round(mib * MIB), ms, 0)


def log(*rounds: RoundMeasurement) -> RoundLog:
    found = RoundLog()
    for each in rounds:
        found = found.closing(each)
    return found


COMPLETED = Progress(
    outcome=Outcome.COMPLETED,
    rounds=log(measured(0, 1000, 1000), measured(1, 0.1, 20), measured(2, 10, 30)),
    downtime=DOWNTIME,
    verified_by="witness",
    total_ms=5000,
    started_after_ms=3500,
)


def test_an_attempt_shows_its_link_its_standstill_and_what_it_took_beside() -> None:
    shown = shown_by(COMPLETED, 0)
    assert shown is not None
    assert shown.wire_bytes_per_s == pytest.approx(1000 * MIB)
    assert shown.fixed_ms == pytest.approx(80 - 10)
    assert shown.around_ms == pytest.approx(5000 - 3500 - 1020 - 80)


def test_what_was_hashed_at_the_pause_is_no_fixed_part() -> None:
    shown = shown_by(replace(COMPLETED, verified_by="full"), 0)
    assert shown is not None
    assert shown.fixed_ms == pytest.approx(80 - 10 - 10)


def test_a_user_who_limits_the_bandwidth_learns_nothing_of_the_link() -> None:
    limited, unlimited = shown_by(COMPLETED, 1010 * MIB), shown_by(COMPLETED, 2000 * MIB)
    assert limited is not None
    assert unlimited is not None
    assert limited.wire_bytes_per_s is None
    assert unlimited.wire_bytes_per_s == pytest.approx(1000 * MIB)
    assert limited.fixed_ms == unlimited.fixed_ms


def test_pages_that_travelled_as_less_count_as_what_they_were_on_the_wire() -> None:
    squeezed = replace(measured(0, 1000, 500), wire_bytes=300 * MIB)
    shown = shown_by(replace(COMPLETED, rounds=log(squeezed, measured(1, 1, 10))), 0)
    assert shown is not None
    assert shown.wire_bytes_per_s == pytest.approx(600 * MIB)
    assert not shown.filled_the_wire


def test_what_a_standstill_takes_beside_its_bytes_is_judged_by_the_wire() -> None:
    squeezed = replace(measured(1, 10, 30), wire_bytes=5 * MIB)
    shown = shown_by(replace(COMPLETED, rounds=log(measured(0, 1000, 1000), squeezed)), 0)
    assert shown is not None
    assert shown.fixed_ms == pytest.approx(80 - 5)


def test_a_limit_is_one_of_the_wire_however_much_its_bytes_stood_for() -> None:
    squeezed = replace(measured(0, 1000, 1000), wire_bytes=250 * MIB)
    progress = replace(COMPLETED, rounds=log(squeezed, measured(1, 1, 10)))
    held, free = shown_by(progress, 260 * MIB), shown_by(progress, 900 * MIB)
    assert held is not None
    assert free is not None
    assert held.wire_bytes_per_s is None
    assert free.wire_bytes_per_s == pytest.approx(250 * MIB)
    assert held.pages_per_wire == pytest.approx(4)


def test_what_a_byte_on_the_wire_stood_for_is_never_promised() -> None:
    record = TrackRecord()
    assert record.pages_per_wire() == Range.exactly(1.0)
    for factor in (2.0, 3.0, 4.0):
        record.note("b", Shown(1e9, 40, 100, factor))
    assert (record.pages_per_wire().low, record.pages_per_wire().likely) == (1.0, 3.0)
    assert record.pages_per_wire().high > 4.0


def test_an_attempt_that_moved_next_to_nothing_shows_no_link() -> None:
    shown = shown_by(replace(COMPLETED, rounds=log(measured(0, 0.5, 200), measured(1, 0, 30))), 0)
    assert shown is not None
    assert shown.wire_bytes_per_s is None
    assert shown.fixed_ms == pytest.approx(80), "a last round of nothing is not its bytes"


def test_a_round_that_looked_at_zeros_shows_no_link_and_its_time_is_not_its_bytes() -> None:
    zeros = replace(measured(0, 2, 200), zero_pages=100_000)
    shown = shown_by(replace(COMPLETED, rounds=log(zeros, measured(1, 0, 30))), 0)
    sent = shown_by(replace(COMPLETED, rounds=log(measured(0, 2, 200), measured(1, 0, 30))), 0)
    assert shown is not None
    assert sent is not None
    assert shown.wire_bytes_per_s is None
    assert sent.wire_bytes_per_s == pytest.approx(10 * MIB)
    assert shown.around_ms == pytest.approx(sent.around_ms + 200)
    at_work = shown_by(replace(COMPLETED, rounds=log(replace(zeros, sending_ms=100), measured(1, 0, 30))), 0)
    assert at_work is not None
    assert at_work.wire_bytes_per_s == pytest.approx(20 * MIB), "where it was measured when the link was at work"


def test_how_fast_all_memory_was_hashed_is_remembered_and_what_a_witness_saves_is_not() -> None:
    whole = replace(COMPLETED, rounds=log(measured(0, 1000, 1000), measured(1, 10, 30)), pages_verified=100 * 256)
    assert whole.downtime is not None
    whole = replace(whole, downtime=replace(whole.downtime, verify_us=20_000))
    full, witness = (shown_by(replace(whole, verified_by=by), 0) for by in ("full", "witness"))
    assert full is not None
    assert witness is not None
    assert full.hashed_bytes_per_s == pytest.approx(5000 * MIB)
    assert witness.hashed_bytes_per_s is None
    record = TrackRecord()
    assert record.hashed_bytes_per_s("b") is None
    record.note("b", full)
    record.note("b", witness)
    assert record.hashed_bytes_per_s("b") == record.hashed_bytes_per_s("c") == full.hashed_bytes_per_s


@pytest.mark.parametrize(
    "other",
    [
        replace(COMPLETED, outcome=Outcome.FAILED),
        replace(COMPLETED, downtime=None),
        replace(COMPLETED, rounds=RoundLog()),
    ],
)
def test_only_a_completed_attempt_shows_anything(other: Progress) -> None:
    assert shown_by(other, 0) is None


def test_each_link_is_its_own_and_a_standstill_is_the_agents() -> None:
    record = TrackRecord()
    assert (record.link_bytes_per_s("b"), record.fixed_ms("b"), record.around_ms("b")) == (None, None, None)
    record.note("b", Shown(1e9, 40, 100))
    fixed = record.fixed_ms("c")
    assert fixed is not None
    assert (record.link_bytes_per_s("c"), fixed.likely) == (None, 40)
    record.note("c", Shown(None, 60, 100))
    fixed = record.fixed_ms("c")
    assert fixed is not None
    assert (record.link_bytes_per_s("c"), fixed.likely) == (None, 60)


def link(*shown: Shown) -> Range | None:
    record = TrackRecord()
    for each in shown:
        record.note("b", each)
    return record.link_bytes_per_s("b")


def test_an_attempt_that_waited_for_a_codec_shows_only_that_the_wire_is_no_slower() -> None:
    plain, squeezed = Shown(1e9, 40, 100), Shown(6e8, 40, 100, pages_per_wire=2.0)
    assert link(plain, squeezed) == link(plain)
    assert link(squeezed) == link(Shown(6e8, 40, 100)), "where nothing better is known"
    faster = link(plain, replace(squeezed, wire_bytes_per_s=2e9))
    assert faster is not None
    assert faster.likely > 1e9


def test_old_attempts_are_forgotten() -> None:
    record = TrackRecord()
    for rate in (1.0, *[1e9] * 8):
        record.note("b", Shown(rate, 40, 100))
    link = record.link_bytes_per_s("b")
    assert link is not None
    assert link.low > 8e8


def test_devices_state_is_shown_apart_where_there_is_much_of_it() -> None:
    last = replace(measured(1, 10, 150), wire_bytes=42 * MIB)
    downtime = Downtime(10_000, 30_000, 100_000, 10_000, 5_000, 20_000, 0, shared_clock=True)
    stopped = replace(COMPLETED, rounds=log(measured(0, 1000, 1000), last), downtime=downtime)
    shown = shown_by(replace(stopped, device_bytes_stopped=32 * MIB), 0)
    assert shown is not None
    assert shown.device_bytes_per_s == pytest.approx(320 * MIB)
    assert shown.fixed_ms == pytest.approx(175 - 10 - 100)
    little = shown_by(replace(stopped, device_bytes_stopped=4096), 0)
    assert little is not None
    assert little.device_bytes_per_s is None
    record = TrackRecord()
    assert record.device_bytes_per_s("b") is None
    record.note("b", shown)
    record.note("b", little)
    assert record.device_bytes_per_s("b") == record.device_bytes_per_s("c") == shown.device_bytes_per_s


def test_what_a_round_takes_beside_its_pages_is_shown_by_the_middle_one() -> None:
    rounds = [replace(measured(number, 100, 130), sending_ms=130 - beside) for number, beside in enumerate((30, 9, 10))]
    shown = shown_by(replace(COMPLETED, rounds=log(*rounds, measured(3, 1, 10))), 0)
    assert shown is not None
    assert shown.round_ms == pytest.approx(10)
    record = TrackRecord()
    assert record.round_ms("b") is None
    record.note("b", shown)
    assert record.round_ms("b") == record.round_ms("c") == Range.of_samples([shown.round_ms])


def test_pages_that_codecs_made_fewer_say_how_fast_such_pages_come_across() -> None:
    plain = shown_by(replace(COMPLETED, rounds=log(measured(0, 1000, 1000), measured(1, 1, 10))), 0)
    squeezed = replace(measured(0, 1000, 500), wire_bytes=300 * MIB)
    progress = replace(COMPLETED, rounds=log(squeezed, measured(1, 1, 10)))
    packed, held_back = shown_by(progress, 0), shown_by(progress, 601 * MIB)
    assert plain is not None
    assert packed is not None
    assert held_back is not None
    assert (plain.packed_bytes_per_s, held_back.packed_bytes_per_s) == (None, None)
    assert packed.packed_bytes_per_s == pytest.approx(2000 * MIB)
    record = TrackRecord()
    record.note("b", plain)
    assert record.packed_bytes_per_s("b") is None
    record.note("b", packed)
    assert record.packed_bytes_per_s("b") == Range.of_samples([2000 * MIB])
    assert record.packed_bytes_per_s("c") is None


def test_machines_of_one_kind_say_nothing_of_those_of_another() -> None:
    records = TrackRecords()
    records.of("model").note("b", Shown(1e9, 40, 100))
    assert records.of("model").link_bytes_per_s("b") is not None
    assert (records.of("qemu").link_bytes_per_s("b"), records.of("qemu").fixed_ms("b")) == (None, None)
