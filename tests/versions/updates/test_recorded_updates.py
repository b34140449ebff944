"""What processes of released versions hand over, read by this one: the current format and the one before."""

from pathlib import Path

import pytest

from lab.rehearsal.side import assembled_side
from tests.versions.updates.recording import EARLY, MACHINE, STATE, documents_of, recorded_scenario
from vmm.assembly.machine_state import StandingState
from vmm.update.documents import FORMAT, READS, EarlyDocument, StateDocument, decode, encode, require_fit

FOLDER = Path(__file__).parent
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if (path / EARLY).is_file())


def test_every_version_that_updates_machines_has_its_documents_here() -> None:
    assert VERSIONS
    assert "0.2.0" in VERSIONS, "0.1.0 handed nothing over"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_machine_of_a_released_version_is_taken_over(version: str) -> None:
    early = decode((FOLDER / version / EARLY).read_bytes(), EarlyDocument)
    state = decode((FOLDER / version / STATE).read_bytes(), StateDocument)
    scenario = recorded_scenario()
    require_fit(early, scenario.machine, MACHINE, len(early.descriptors))
    with assembled_side(scenario) as side:
        machine = side.machine
        machine.take_over(StandingState(state.origin, state.viommu, state.guest))
        report = machine.report()
        assert (report.errors, report.jobs_done > 0) == (0, True)
        assert machine.standing_state().guest == state.guest
        assert machine.standing_state().origin == state.origin


def test_what_this_version_writes_has_its_format_recorded() -> None:
    with assembled_side(recorded_scenario()) as side:
        early, state = documents_of(side)
    newest = FOLDER / VERSIONS[-1]
    assert (early.version, state.version) == (FORMAT, FORMAT)
    assert encode(early) == (newest / EARLY).read_bytes()
    recorded = decode((newest / STATE).read_bytes(), StateDocument)
    assert (recorded.version, len(recorded.mappings)) == (state.version, len(state.mappings))


def test_this_format_and_the_one_before_are_read() -> None:
    assert tuple(range(FORMAT, 0, -1))[:2] == READS
    recorded = {decode((FOLDER / version / EARLY).read_bytes(), EarlyDocument).version for version in VERSIONS[-2:]}
    assert recorded <= set(READS)
