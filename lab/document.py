"""What `viaduct lab` prints with --json: `viaduct.lab.v1`, and `viaduct.scenarios.v1` of its list."""

from collections.abc import Sequence

import msgspec

from lab import words
from lab.observation import Observation, disagreements
from lab.scenario import Expectation, Scenario


class LabRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario, one way to run it, what was expected and what was seen."""

    scenario: str
    title: str
    sources: tuple[str, ...]
    way: str
    """in-process, or agents."""
    configuration: str
    expected: str
    seen: str
    ok: bool
    disagreements: tuple[str, ...]
    """What was expected and not seen, in words."""
    stream: str
    """completed, failed, blocked, allowed, measured or updated."""
    verifier: str | None
    """accepts or refuses; null where nothing was verified."""
    pages_lost: int | None
    """By the oracle; null where it did not look."""
    pages_refused: int | None
    flushes: int
    unmaps: int
    error: str
    blockers: tuple[str, ...]
    warnings: tuple[str, ...]
    trackers: tuple[str, ...]
    guest_errors: int
    stale_mappings: int
    switches: int
    rounds: int
    standstill_ms: float
    planned_standstill_ms: float


class LabDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"schema_name": "schema"}):
    """The rows of one run."""

    schema_name: str
    ok: bool
    rows: tuple[LabRow, ...]


class ScenarioLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shipped scenario."""

    name: str
    title: str
    sources: tuple[str, ...]


class ScenariosDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"schema_name": "schema"}):
    """The scenarios that are shipped."""

    schema_name: str
    scenarios: tuple[ScenarioLine, ...]


def scenarios_document(scenarios: Sequence[Scenario]) -> ScenariosDocument:
    """Return the document of a list of scenarios."""
    lines = tuple(ScenarioLine(one.name, one.document.title, one.document.sources) for one in scenarios)
    return ScenariosDocument("viaduct.scenarios.v1", lines)


def row_of(scenario: Scenario, expected: Expectation, seen: Observation, way: str) -> LabRow:
    """Return a scenario's row; `expected` is what of its expectation can be seen in that way."""
    document = scenario.document
    missing = disagreements(expected, seen)
    return LabRow(
        scenario=scenario.name,
        title=document.title,
        sources=document.sources,
        way=way,
        configuration=words.configuration(scenario),
        expected=words.expectation(expected),
        seen=words.sight(seen),
        ok=not missing,
        disagreements=missing,
        stream=seen.outcome,
        verifier=seen.verifier or None,
        pages_lost=None if seen.lost_pages is None else len(seen.lost_pages),
        pages_refused=None if seen.refused_pages is None else len(seen.refused_pages),
        flushes=seen.flushes,
        unmaps=seen.unmaps,
        error=seen.error,
        blockers=seen.blockers,
        warnings=seen.warnings,
        trackers=seen.trackers,
        guest_errors=seen.guest_errors,
        stale_mappings=seen.stale_mappings,
        switches=seen.switches,
        rounds=seen.rounds,
        standstill_ms=seen.standstill_ms,
        planned_standstill_ms=seen.planned_standstill_ms,
    )


def document_of(rows: Sequence[LabRow]) -> LabDocument:
    """Return the document of a run's rows."""
    return LabDocument("viaduct.lab.v1", all(row.ok for row in rows), tuple(rows))
