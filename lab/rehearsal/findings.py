"""What is said of a machine before anything moves: blockers, warnings, trackers, the expected standstill."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lab.observation import Observation
from lab.rehearsal.plan import Plan
from lab.rehearsal.side import Side
from vmm.vfio.blockers import Finding

OVER_LIMIT: Final = "standstill-over-limit"


def first_sight(side: Side, plan: Plan) -> Observation:
    """Return what blocks a machine, or warns, before it is moved; the outcome is still `allowed`."""
    return seen_beforehand(side, plan, *side.machine.findings())


def seen_beforehand(side: Side, plan: Plan, blockers: Sequence[Finding], warnings: Sequence[Finding]) -> Observation:
    """Return the same of findings that are given."""
    codes = [str(finding.code) for finding in blockers]
    texts = [finding.message for finding in blockers]
    if not plan.standstill.fits:
        codes.append(OVER_LIMIT)
        texts.append(plan.standstill.message)
    return Observation(
        outcome="allowed",
        error="; ".join(texts),
        blockers=tuple(codes),
        warnings=tuple(str(finding.code) for finding in warnings),
        trackers=tuple(assembled.container.tracker.value for assembled in side.machine.devices),
        planned_standstill_ms=plan.forecast.downtime_ms,
    )


def blocked(seen: Observation) -> Observation:
    """Return the end of an attempt that a blocker refused."""
    return replace(seen, outcome="blocked")
