"""What a run of a scenario showed, and whether it is what was expected. Pure.

Three things are told apart: the stream (did the migration complete, and if not, with what text), the verifier (which
pages differ by their digests), and the oracle (which pages differ in truth, though nothing was pending).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.scenario import Expectation

_AS_PLANNED: Final = 0.1
_ALWAYS: Final = frozenset({"rate-assumed"})
"""Warnings of agents that have not sent anything to each other yet."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen. Pages are indexes in RAM; None means that nobody looked."""

    outcome: str
    """completed, failed, blocked, allowed, measured or updated."""
    error: str = ""
    blockers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refused_pages: frozenset[int] | None = None
    lost_pages: frozenset[int] | None = None
    unmaps: int = 0
    """Unmaps while dirty pages were tracked."""
    flushes: int = 0
    """IOTLB flushes that those unmaps caused."""
    stale_mappings: int = 0
    """Mappings left in a container for which the address space has none."""
    trackers: tuple[str, ...] = ()
    """Of each container, in the devices' order."""
    guest_errors: int = 0
    own_errors: int = 0
    """What the guest brought on itself; not among the errors above."""
    standstill_ms: float = 0.0
    planned_standstill_ms: float = 0.0
    rounds: int = 0
    switches: int = 0
    """How often a device went from one domain to another, from the beginning of the migration on."""
    complaints: tuple[str, ...] = ()
    """What a process logged as a warning or an error, where the migration should have gone without one."""
    updates: int = 0
    """How many processes have taken the machine over."""
    jobs: str = ""
    """whole or lost, of an update."""
    devices_reset: int = 0
    mappings_changed: int = 0
    locked_memory: str = ""
    """own or left-behind, of an update."""
    missed: tuple[str, ...] = ()
    """Moments at which something was to be done, and that never came before the guest stopped."""

    @property
    def verifier(self) -> str:
        """accepts, refuses, or nothing."""
        if self.refused_pages is None:
            return ""
        return "refuses" if self.refused_pages else "accepts"


def disagreements(expected: Expectation, seen: Observation) -> tuple[str, ...]:
    """Return in words everything that was expected and not seen; nothing when all is as expected."""
    return tuple(_disagreements(expected, seen))


def _disagreements(expected: Expectation, seen: Observation) -> Iterator[str]:
    if seen.outcome != expected.outcome:
        yield f"{seen.outcome}, not {expected.outcome}"
    if expected.error not in seen.error:
        yield f'error text "{seen.error}" does not say "{expected.error}"'
    if expected.blockers is not None and set(seen.blockers) != set(expected.blockers):
        yield f"blockers {_listed(seen.blockers)}, not {_listed(expected.blockers)}"
    if expected.warnings is not None and set(seen.warnings) - _ALWAYS != set(expected.warnings):
        yield f"warnings {_listed(seen.warnings)}, not {_listed(expected.warnings)}"
    if expected.verifier is not None and seen.verifier != expected.verifier:
        yield f"verifier {seen.verifier or 'did not look'}, not {expected.verifier}"
    if expected.verifier == "refuses" and seen.refused_pages != seen.lost_pages:
        yield "verifier and oracle name different pages"
    yield from _pages(expected, seen)
    yield from _counts(expected, seen)
    yield from _trackers(expected, seen)
    yield from _guest(expected, seen)
    yield from _update(expected, seen)


def _pages(expected: Expectation, seen: Observation) -> Iterator[str]:
    if expected.pages_lost is None:
        return
    if seen.lost_pages is None:
        yield "the oracle did not look"
    elif bool(seen.lost_pages) != (expected.pages_lost == "some"):
        yield f"{len(seen.lost_pages)} pages lost, expected {expected.pages_lost}"


def _counts(expected: Expectation, seen: Observation) -> Iterator[str]:
    if expected.flushes is not None:
        wanted = seen.unmaps if expected.flushes == "one-per-unmap" else 0
        if seen.flushes != wanted:
            yield f"{seen.flushes} flushes for {seen.unmaps} unmaps, expected {wanted}"
    if expected.unmaps is not None and not _as_many(seen.unmaps, expected.unmaps):
        yield f"{seen.unmaps} unmaps, expected {expected.unmaps}"
    if expected.stale_mappings is not None and seen.stale_mappings != expected.stale_mappings:
        yield f"{seen.stale_mappings} stale mappings, not {expected.stale_mappings}"
    if expected.switches is not None and bool(seen.switches) != (expected.switches == "some"):
        yield f"{seen.switches} switches of domains, expected {expected.switches}"
    if seen.missed:
        yield f"nothing was done at {_listed(seen.missed)}: it was over before"
    if bool(seen.complaints) != (expected.complaints == "some"):
        yield f"logged: {'; '.join(seen.complaints) or 'nothing'}"
    planned = seen.planned_standstill_ms
    if expected.standstill_as_planned and abs(seen.standstill_ms - planned) > planned * _AS_PLANNED:
        yield f"stood still for {seen.standstill_ms:.0f} ms, planned {planned:.0f} ms"


def _trackers(expected: Expectation, seen: Observation) -> Iterator[str]:
    wanted = expected.tracker
    if isinstance(wanted, str):
        wanted = (wanted,) * max(len(seen.trackers), 1)
    if wanted is not None and seen.trackers != wanted:
        yield f"trackers {', '.join(seen.trackers) or 'none'}, not {', '.join(wanted)}"


def _guest(expected: Expectation, seen: Observation) -> Iterator[str]:
    if expected.guest_errors is not None and seen.guest_errors != expected.guest_errors:
        yield f"{seen.guest_errors} guest errors, not {expected.guest_errors}"
    if expected.own_errors is not None and not _as_many(seen.own_errors, expected.own_errors):
        yield f"{seen.own_errors} errors of the guest's own, expected {expected.own_errors}"


def _update(expected: Expectation, seen: Observation) -> Iterator[str]:
    if expected.updates is not None and seen.updates != expected.updates:
        yield f"{seen.updates} updates, not {expected.updates}"
    if expected.jobs is not None and seen.jobs != expected.jobs:
        yield f"jobs {seen.jobs or 'not looked at'}, not {expected.jobs}"
    if expected.devices_reset is not None and seen.devices_reset != expected.devices_reset:
        yield f"{seen.devices_reset} devices reset, not {expected.devices_reset}"
    if expected.mappings_changed is not None and seen.mappings_changed != expected.mappings_changed:
        yield f"{seen.mappings_changed} mappings made or unmade, not {expected.mappings_changed}"
    if expected.locked_memory is not None and seen.locked_memory != expected.locked_memory:
        yield f"locked memory {seen.locked_memory or 'not looked at'}, not {expected.locked_memory}"


def _as_many(count: int, expected: int | str) -> bool:
    return count == expected if isinstance(expected, int) else bool(count) == (expected == "some")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"
