"""The busy machine: 1 GiB, iommufd, 100 MiB/s of CPU writes and 50 MiB/s of DMA, downtime limit 300 ms."""

from typing import Final

from benchmarks.figures import Row
from benchmarks.rig import GIB, MIB, rig
from orchestrator.policy import MigrationPolicy

LIMIT_MS: Final = 300.0


async def measure(runs: int) -> list[Row]:
    """Return downtime, mismatches and guest errors over the runs."""
    document: dict[str, object] = {
        "name": "busy",
        "memory": {"size": GIB},
        "guest": {"cpu_dirty_rate": 100 * MIB, "working_set": 256 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": 50 * MIB}],
    }
    downtimes, mismatched, errors, totals, completed = [], [], [], [], 0
    async with rig(document, insecure=False) as site:
        for _ in range(runs):
            attempt = await site.move(MigrationPolicy())
            report = attempt.report
            completed += attempt.outcome == "completed"
            if report is None:
                continue
            downtimes.append(report.downtime.downtime_ms)
            mismatched.append(float(report.pages_mismatched))
            totals.append(report.total_ms)
            errors.append(float((await site.look()).guest.errors))
    return [
        Row("busy machine: attempts completed", "runs", (float(completed),), must=float(runs)),
        Row("busy machine: downtime", "ms", tuple(downtimes), must=LIMIT_MS, better="lower", worst=True),
        Row("busy machine: pages mismatched", "pages", tuple(mismatched), must=0.0, better="lower", worst=True),
        Row("busy machine: guest errors", "errors", tuple(errors), must=0.0, better="lower", worst=True),
        Row("busy machine: total", "ms", tuple(totals)),
    ]
