"""The limits of an attempt in force: as `viaduct tune` left them, and until then as they were asked for. Pure."""

from dataclasses import dataclass

from orchestrator.attempt import Attempt
from vm_migration.api.v1 import source_pb2


@dataclass(frozen=True, slots=True)
class Limits:
    """What an attempt is held to."""

    downtime_ms: int
    bandwidth_bytes_per_s: int
    """0: unlimited."""
    tuned: bool
    """They are not what was asked for at first."""


def limits_of(attempt: Attempt) -> Limits:
    """Return what is in force, as the source says; one of 0.1.0 does not say, and is taken at what was asked for."""
    policy, report = attempt.policy, attempt.report or source_pb2.AttemptReport()
    downtime_ms = report.downtime_limit_ms or policy.downtime_limit_ms
    bandwidth = report.max_bandwidth_bytes_per_s or policy.max_bandwidth_bytes_per_s
    asked = (policy.downtime_limit_ms, policy.max_bandwidth_bytes_per_s)
    return Limits(downtime_ms, bandwidth, (downtime_ms, bandwidth) != asked)
