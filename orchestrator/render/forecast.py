"""What was expected of a migration as people read it, and how far from that it came out. Pure."""

from collections.abc import Sequence
from typing import Final

from orchestrator.render.quantities import span
from orchestrator.result import has_range
from vm_migration.api.v1 import types_pb2

_AS_EXPECTED: Final = 0.005
"""Half a percent, which is shown as none."""


def in_all(expected: types_pb2.Expected) -> str:
    """Return the whole time: `2.7 s (2.1 s to 3.4 s)`."""
    return _with_bounds(expected.total_ms, expected.total_low_ms, expected.total_high_ms, told=has_range(expected))


def standing_still(expected: types_pb2.Expected) -> str:
    """Return the downtime, likewise."""
    return _with_bounds(
        expected.downtime_ms, expected.downtime_low_ms, expected.downtime_high_ms, told=has_range(expected)
    )


def beside_outcome(expected: types_pb2.Expected, total_ms: float, downtime_ms: float) -> str:
    """Return what was expected, and how much more or less came."""
    whole = f"{in_all(expected)} in all, {came(expected.total_ms, total_ms)}"
    return f"{whole}; downtime {standing_still(expected)}, {came(expected.downtime_ms, downtime_ms)}"


def foretold(expected: types_pb2.Expected) -> str:
    """Return what is expected of an attempt that has no outcome to be told beside it."""
    never = "; it may never fit the limit" if has_range(expected) and not expected.converges else ""
    return f"{in_all(expected)} in all; downtime {standing_still(expected)}{never}"


def all_alike(profiles: Sequence[types_pb2.Expected]) -> bool:
    """Say whether the same is expected under every profile, as people read it."""
    return len({(each.rounds, in_all(each), standing_still(each), each.converges) for each in profiles}) == 1


def came(expected_ms: float, outcome_ms: float) -> str:
    """Return by how much of what was expected the outcome differs: `came 12 % less`."""
    if expected_ms <= 0:
        return f"came {span(outcome_ms)}"
    off = outcome_ms / expected_ms - 1
    if abs(off) < _AS_EXPECTED:
        return "came so"
    return f"came {abs(off) * 100:.0f} % {'more' if off > 0 else 'less'}"


def _with_bounds(likely: float, low: float, high: float, *, told: bool) -> str:
    return f"{span(likely)} ({span(low)} to {span(high)})" if told else span(likely)
