"""What a report tells of very many rounds is small, counts all of them, and begins and ends where they do."""

from functools import reduce

import msgspec

from source_agent.progress import Progress
from source_agent.report import attempt_report
from tests.source_agent.departures import OWNER, TERMS
from vm_migration.transfer.convergence import RoundMeasurement
from vm_migration.transfer.round_log import MOST_TOLD, RoundLog


def closed(number: int) -> RoundMeasurement:
    return RoundMeasurement(
        round=number,
        dirty_pages=100,
        sent_pages=90,
        zero_pages=10,
        wire_bytes=90 * 4096,
        ms=2.0,
        dirtied_pages=100,
        cpu_dirtied_pages=80,
        dma_dirtied_pages=30,
        throttle_percent=20,
        device_throttle_percent=30,
    )


def test_a_report_of_thirty_thousand_rounds_is_small_and_counts_them_all() -> None:
    rounds = reduce(RoundLog.closing, (closed(number) for number in range(30_000)), RoundLog())
    report = attempt_report(OWNER, Progress(rounds=rounds), None, TERMS, host="host-a", name="guest")
    assert report.rounds_closed == 30_000
    assert len(report.rounds) <= MOST_TOLD
    assert (report.rounds[0].round, report.rounds[-1].round) == (0, 29_999)
    assert (report.rounds[0].ended_ms, report.rounds[-1].ended_ms) == (2.0, 60_000.0)
    assert (report.rounds[0].cpu_dirtied_pages, report.rounds[0].dma_dirtied_pages) == (80, 30)
    assert (report.rounds[0].throttle_percent, report.rounds[0].device_throttle_percent) == (20, 30)
    assert report.ByteSize() < 40_000


def test_a_report_tells_the_limits_in_force_and_how_often_a_base_was_at_hand() -> None:
    tuned = msgspec.structs.replace(TERMS, downtime_limit_ms=400, max_bandwidth_bytes_per_s=1 << 20)
    progress = Progress(bases_looked_up=10, bases_found=7)
    report = attempt_report(OWNER, progress, None, tuned, host="host-a", name="guest")
    assert (report.downtime_limit_ms, report.max_bandwidth_bytes_per_s) == (400, 1 << 20)
    assert (report.bases_looked_up, report.bases_found) == (10, 7)
