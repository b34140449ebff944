"""What movements come to as samples: our attempts, QEMU's memory, and what processes have used."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.beside.guest import PAGE
from benchmarks.beside.link import HOSTS, make_link
from benchmarks.beside.ours import sample_of
from benchmarks.beside.prediction_worker import prediction_of
from benchmarks.beside.qemu import BELOW, QemuMode, differing_pages
from benchmarks.beside.qemu_credentials import credentials
from benchmarks.beside.scenarios import SCENARIOS, named
from benchmarks.beside.usage import anonymous_bytes, cpu_seconds
from benchmarks.beside.worker import movers
from orchestrator.attempt import Attempt, Fault, Outcome, Phase
from orchestrator.policy import MigrationPolicy
from vm_migration.api.v1 import source_pb2, types_pb2

MIB = 1 << 20
REPORT = source_pb2.AttemptReport(
    total_ms=1500.0,
    bulk_ms=900.0,
    wire_bytes=5 * MIB,
    downtime=types_pb2.Downtime(downtime_ms=40.0),
    rounds_closed=70,
    pages_mismatched=2,
)


def attempt(outcome: Outcome, report: source_pb2.AttemptReport | None, error: Fault | None = None) -> Attempt:
    return Attempt(
        attempt="a", machine="m", name="guest", source="host-a", destination="host-b", policy=MigrationPolicy(),
        phase=Phase.COMPLETED, created_at=0.0, updated_at=0.0, outcome=outcome, report=report, error=error,
        prepare_ms=600.0,
    )  # fmt: skip


def test_an_attempts_total_is_told_without_prepare_and_prepare_beside_it() -> None:
    sample = sample_of(attempt(Outcome.COMPLETED, REPORT), "viaduct grpc", 3, 1.25)
    assert (sample.outcome, sample.total_ms, sample.ready_ms, sample.downtime_ms) == ("completed", 900.0, 600.0, 40.0)
    assert (sample.cpu_seconds, sample.rounds, sample.mismatched_pages) == (1.25, 70, 2)


def test_an_attempt_that_ran_out_of_time_did_not_complete_and_any_other_failed() -> None:
    late, broken = Fault("timeout", "Too slow", ""), Fault("link-lost", "No answer", "")
    assert sample_of(attempt(Outcome.FAILED, REPORT, late), "ours", 1, 0.0).outcome == "did not complete"
    assert sample_of(attempt(Outcome.FAILED, REPORT, broken), "ours", 1, 0.0).outcome == "failed"
    assert sample_of(attempt(Outcome.FAILED, None, broken), "ours", 1, 0.0).why == "No answer"


def test_a_prediction_is_held_against_the_whole_attempt_prepare_included() -> None:
    expected = types_pb2.Expected(
        total_ms=1400.0, total_low_ms=1000.0, total_high_ms=1600.0, downtime_ms=50.0, rounds=9
    )
    told = prediction_of("run", expected, attempt(Outcome.COMPLETED, REPORT), assumed=True)
    assert told.total is not None
    assert told.downtime is not None
    assert (told.total.outcome, told.total.within_bounds, told.downtime.error) == (1500.0, True, 0.25)
    assert (told.expected_rounds, told.rounds, told.assumed) == (9, 70, True)


def test_pages_that_differ_between_a_file_and_what_was_saved_are_counted(tmp_path: Path) -> None:
    here = np.random.default_rng(1).integers(0, 256, BELOW + 64 * PAGE, dtype=np.uint8)
    there = here[BELOW:].copy()
    (tmp_path / "ram").write_bytes(here.tobytes())
    (tmp_path / "saved").write_bytes(there.tobytes())
    assert differing_pages(tmp_path / "ram", tmp_path / "saved", len(there)) == 0
    there[[0, 5, 3 * PAGE + 1]] ^= 1
    (tmp_path / "saved").write_bytes(there.tobytes())
    assert differing_pages(tmp_path / "ram", tmp_path / "saved", len(there)) == 2
    (tmp_path / "saved").write_bytes(there[:PAGE].tobytes())
    assert differing_pages(tmp_path / "ram", tmp_path / "saved", len(there)) == 64


def test_processor_time_is_that_of_everybody_who_names_the_folder_and_of_whom_they_have_seen_end(
    tmp_path: Path,
) -> None:
    burn = "t=__import__('time').process_time\nwhile t() < 0.3: pass"
    script = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('ended', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ended\n"
        assert cpu_seconds(tmp_path) >= 0.25  # each of its four figures is cut to a tick
        assert anonymous_bytes(process.pid) > MIB
        process.communicate(b"\n")
    assert cpu_seconds(tmp_path) == 0.0


def test_both_ends_of_qemus_tls_show_certificates_of_one_authority(tmp_path: Path) -> None:
    for endpoint in ("client", "server"):
        words = credentials(tmp_path, "client" if endpoint == "client" else "server")
        assert f"endpoint={endpoint}" in words
        assert "verify-peer=on" in words
        for name in ("ca-cert.pem", f"{endpoint}-cert.pem", f"{endpoint}-key.pem"):
            assert (tmp_path / f"tls-{endpoint}" / name).read_bytes()
    authorities = {(tmp_path / f"tls-{endpoint}" / "ca-cert.pem").read_bytes() for endpoint in ("client", "server")}
    assert len(authorities) == 1


def test_modes_and_ways_have_names_of_their_own_in_each_scenario() -> None:
    for scenario in SCENARIOS:
        names = [*(mode.name for mode in scenario.ours), *(mode.name for mode in scenario.peers)]
        assert len(set(names)) == len(names)
    assert QemuMode(2, prealloc=True, tls=True).name == "QEMU multifd 2, TLS, destination preallocated"


def test_the_turns_of_the_first_way_follow_how_many_are_asked_for() -> None:
    assert [named("gigabit-busy").turns(runs) for runs in (5, 10, 1)] == [20, 40, 4]
    assert [named("memory-8").turns(runs) for runs in (5, 1)] == [2, 1]
    assert named("loopback").turns(7) == 7


def test_a_trial_is_never_larger_than_the_scenario() -> None:
    assert named("loopback").sized(256 * MIB).size == 256 * MIB
    assert named("loopback").sized(1 << 40).size == 2 << 30
    assert named("loopback").sized(0) == named("loopback")


def test_on_loopback_there_is_nothing_between_the_hosts() -> None:
    network = make_link("loopback")
    assert not network.has_cables
    assert {network.address(host) for host in HOSTS} == {"127.0.0.1"}
    assert network.inside(HOSTS[0]) == []


def test_everybody_moves_once_a_turn_and_begins_in_turn() -> None:
    scenario = named("loopback")
    turns = [movers(scenario, turn) for turn in range(len(scenario.ours) + len(scenario.peers))]
    assert {turn[0] for turn in turns} == {*scenario.ours, *scenario.peers}
    assert all(set(turn) == {*scenario.ours, *scenario.peers} for turn in turns)
    followed = {who: {turn[turn.index(who) - 1] for turn in turns if turn[0] != who} for who in turns[0]}
    assert all(len(before) > 1 for before in followed.values())
