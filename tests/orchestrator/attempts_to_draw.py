"""Attempts as they are shown: ended in every way, open, and of any number of rounds."""

from dataclasses import replace

from orchestrator.attempt import Asked, Attempt, Fault, Notice, Outcome, Phase
from orchestrator.policy import MigrationPolicy
from vm_migration.api.v1 import source_pb2, types_pb2

PAGE = 4096
RAM_PAGES = 262_144


def waiting(name: str = "qat-guest") -> Attempt:
    """Return an attempt that waits for its turn."""
    return Attempt(
        attempt="11111111-2222-3333-4444-555555555555",
        machine="0b0e5f2c-0000-4000-8000-000000000001",
        name=name,
        source="host-a",
        destination="host-b",
        policy=MigrationPolicy(),
        created_at=1_700_000_000.0,
        updated_at=1_700_000_004.5,
    )


def rounds(count: int, *, apart: bool = True, throttle: int = 0) -> list[types_pb2.Round]:
    """Return rounds that each leave a quarter, one after the other."""
    found, dirty, ended = [], RAM_PAGES, 0.0
    for number in range(count):
        ms = 20 + dirty / 100
        ended += ms
        left = max(8, dirty // 4)
        found.append(
            types_pb2.Round(
                round=number,
                dirty_pages=dirty,
                sent_pages=dirty - dirty // 8,
                zero_pages=dirty // 8,
                wire_bytes=dirty * PAGE,
                ms=ms,
                dirty_bytes_per_s=left * PAGE * 1000 / ms,
                wire_bytes_per_s=dirty * PAGE * 1000 / ms,
                cpu_dirtied_pages=left - left // 3 if apart else 0,
                dma_dirtied_pages=left // 3 if apart else 0,
                throttle_percent=throttle,
                ended_ms=ended if apart else 0.0,
            )
        )
        dirty = left
    return found


def copying(name: str = "qat-guest", count: int = 5, *, apart: bool = True, throttle: int = 0) -> Attempt:
    """Return an attempt in pre-copy; agents before 0.3.0 tell neither ends of rounds nor who dirtied."""
    told = rounds(count, apart=apart, throttle=throttle)
    report = source_pb2.AttemptReport(
        phase="pre-copy",
        percent=99,
        rounds=told,
        rounds_closed=count if apart else 0,
        ram_bytes=RAM_PAGES * PAGE,
        wire_bytes=sum(one.wire_bytes for one in told),
        remaining_bytes=told[-1].dirty_pages * PAGE // 4 if told else 0,
        expected_downtime_ms=142.0,
        device_bytes=8192,
        device_left_bytes=4096,
    )
    expected = types_pb2.Expected(total_ms=4000, prepare_ms=400, downtime_ms=120, rounds=4)
    return replace(waiting(name), phase=Phase.PRE_COPY, epoch=2, report=report, expected=expected, prepare_ms=412.0)


def completed(name: str = "qat-guest", count: int = 6) -> Attempt:
    """Return an attempt that completed, prediction and downtime included."""
    attempt = copying(name, count)
    report = source_pb2.AttemptReport()
    if attempt.report is not None:
        report.CopyFrom(attempt.report)
    report.outcome, report.total_ms, report.remaining_bytes = "completed", 4321.0, 0
    report.verified_by, report.pages_verified = "witness", RAM_PAGES
    report.downtime.CopyFrom(
        types_pb2.Downtime(
            downtime_ms=150.0,
            pause_ms=8.0,
            last_round_ms=60.0,
            device_state_ms=20.0,
            verify_ms=40.0,
            handoff_ms=12.0,
            resume_ms=10.0,
            uncertainty_ms=0.5,
        )
    )
    report.guest.CopyFrom(types_pb2.GuestReport(jobs_done=1234, dirty_bytes_per_s=6e7, dma_bytes_per_s=2e7))
    return replace(attempt, phase=Phase.COMPLETED, outcome=Outcome.COMPLETED, report=report)


def updated(name: str = "qat-guest", mode: str = "transfer") -> Attempt:
    """Return an update that completed."""
    attempt = waiting(name)
    exec_ms = 280.0 if mode == "exec" else 0.0
    parts = (0.0, 0.0, 0.0, exec_ms) if exec_ms else (6.0, 4.0, 5.0, 3.0)
    names = ("device_state_ms", "verify_ms", "handoff_ms", "resume_ms")
    downtime = types_pb2.Downtime(downtime_ms=sum(parts), shared_clock=True, **dict(zip(names, parts, strict=True)))
    report = source_pb2.AttemptReport(outcome="completed", total_ms=900.0, ram_bytes=RAM_PAGES * PAGE)
    report.downtime.CopyFrom(downtime)
    report.guest.CopyFrom(types_pb2.GuestReport(jobs_done=1234, dirty_bytes_per_s=6e7, dma_bytes_per_s=2e7))
    return replace(
        attempt,
        destination=attempt.source,
        phase=Phase.COMPLETED,
        outcome=Outcome.COMPLETED,
        report=report,
        asked=Asked(update=mode),
    )


def failed(name: str = "qat-guest") -> Attempt:
    """Return an attempt that did not converge, with warnings."""
    return replace(
        copying(name),
        phase=Phase.ABORTED,
        outcome=Outcome.FAILED,
        error=Fault("timeout", "Migration did not converge in 600000 ms", "Raise the limits"),
        warnings=(Notice("rate-assumed", "400 MB/s is assumed", "qat0"),),
    )


def refused(name: str = "qat-guest") -> Attempt:
    """Return an attempt that never began."""
    return replace(
        waiting(name),
        phase=Phase.REFUSED,
        outcome=Outcome.REFUSED,
        blockers=(Notice("no-p2p", "No P2P states", "qat0"),),
        error=Fault("no-p2p", "No P2P states", "See all of it: viaduct preflight"),
    )
