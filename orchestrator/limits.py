"""The limits of an attempt in force: as `viaduct tune` left them, and until then as they were asked for. Pure."""

from dataclasses import dataclass
from typing import Final

from orchestrator.attempt import Attempt
from vm_migration.api.v1 import source_pb2

UNLIMITED: Final = 1 << 62
"""Bytes a second that no link carries: so an attempt that runs is told that nothing limits it, as 0 changes nothing."""


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
    told = report.max_bandwidth_bytes_per_s or policy.max_bandwidth_bytes_per_s
    bandwidth = rate_wanted(told)
    asked = (policy.downtime_limit_ms, policy.max_bandwidth_bytes_per_s)
    return Limits(downtime_ms, bandwidth, (downtime_ms, bandwidth) != asked)


def rate_told(bytes_per_s: int) -> int:
    """Return how a limit on the bandwidth, where 0 is none, is told to an attempt that runs."""
    return bytes_per_s or UNLIMITED


def rate_wanted(told: int) -> int:
    """Return the limit that was told so; 0 is none."""
    return 0 if told >= UNLIMITED else told
