"""How memory travelled, and within which limits, as people read it. Pure."""

from orchestrator.attempt import Attempt
from orchestrator.limits import limits_of
from orchestrator.render.quantities import rate, size, span
from orchestrator.result import delta_hit_rate
from vm_migration.api.v1 import source_pb2


def travelled(report: source_pb2.AttemptReport) -> str:
    """Return over what pages travelled, and what made them fewer; nothing where the source does not tell."""
    words = [f"over {report.transport}"] if report.transport else []
    if report.raw_bytes:
        words.append(f"{size(report.raw_bytes)} of pages were sent")
    if report.compression:
        words.append(f"compression {report.compression} in the end")
    hits = delta_hit_rate(report)
    if hits is not None:
        words.append(f"deltas had a base for {100 * hits:.0f} % of {report.bases_looked_up} pages")
    return ", ".join(words)


def downtime_limit(attempt: Attempt) -> str:
    """Return the downtime limit in force, and what was asked for where that was another."""
    return _tuned(span(limits_of(attempt).downtime_ms), span(attempt.policy.downtime_limit_ms))


def bandwidth_limit(attempt: Attempt) -> str:
    """Return the same of the bandwidth."""
    in_force, asked = limits_of(attempt).bandwidth_bytes_per_s, attempt.policy.max_bandwidth_bytes_per_s
    return _tuned(bandwidth_words(in_force), bandwidth_words(asked))


def _tuned(in_force: str, asked: str) -> str:
    return in_force if in_force == asked else f"{in_force}, tuned; at first {asked}"


def bandwidth_words(limit: int) -> str:
    """Return a limit on the bandwidth, in bytes a second; 0 is none."""
    return rate(limit) if limit else "unlimited"
