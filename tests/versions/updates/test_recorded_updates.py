"""What processes of released versions hand over, read by this one: the current format and the one before."""

import os
from pathlib import Path

import pytest

from lab.rehearsal.side import assembled_side
from tests.versions.updates.recording import (
    EARLY,
    KEPT,
    MACHINE,
    STATE,
    SUSPENDED,
    documents_of,
    kept_of,
    recorded_scenario,
)
from vmm.assembly.machine_state import StandingState
from vmm.update import documents, kept, suspended_machine
from vmm.update.documents import (
    FORMAT,
    READS,
    EarlyDocument,
    InvalidHandover,
    StateDocument,
    decode,
    encode,
    require_fit,
)

FOLDER = Path(__file__).parent
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if (path / EARLY).is_file())


@pytest.fixture(params=["current", "previous"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Recorded documents are of the format that is written now, or of the one before, as a later version reads them."""
    if request.param == "previous":
        monkeypatch.setattr(documents, "READS", (FORMAT + 1, FORMAT))
        monkeypatch.setattr(documents, "FORMAT", FORMAT + 1)
        monkeypatch.setattr(suspended_machine, "FORMAT", FORMAT + 1)
    return str(request.param)


def test_every_version_that_updates_machines_has_its_documents_here() -> None:
    assert VERSIONS
    assert "0.2.0" in VERSIONS, "0.1.0 handed nothing over"


@pytest.mark.usefixtures("place")
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


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_program_of_a_released_version_left_is_read(version: str) -> None:
    number = os.memfd_create("recorded", os.MFD_CLOEXEC)
    try:
        os.write(number, (FOLDER / version / KEPT).read_bytes())
        found = kept.read(number)
    finally:
        os.close(number)
    early, state = decode(found.early, EarlyDocument), decode(found.state, StateDocument)
    assert len(found.numbers) == len(early.descriptors)
    assert (found.instance, found.stop.pause, found.asker.controller) == ("t", state.pause, state.controller)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_machine_that_a_released_version_left_in_files_is_found(version: str) -> None:
    size = recorded_scenario().machine.memory.size
    state = suspended_machine.read(FOLDER / version / SUSPENDED, MACHINE, size)
    assert (state.pause, state.epoch, state.mappings) == (3, 2, ())


@pytest.mark.parametrize("version", VERSIONS)
def test_documents_of_the_format_before_the_previous_one_are_refused_before_anything_changes_hands(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "READS", (FORMAT + 2, FORMAT + 1))
    early, state = ((FOLDER / version / name).read_bytes() for name in (EARLY, STATE))
    for read in (lambda: decode(early, EarlyDocument), lambda: decode(state, StateDocument)):
        with pytest.raises(InvalidHandover, match=f"reads {FORMAT + 2} and {FORMAT + 1}"):
            read()


def test_every_document_of_a_format_that_is_read_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A later version reads its own format and this one: all of a machine's documents, not the first two alone."""
    with assembled_side(recorded_scenario()) as side:
        early, state = documents_of(side)
    size = early.ram_bytes
    suspended_machine.write(tmp_path / "waits", MACHINE, size, state)
    number = kept.write(kept_of(early, state))
    try:
        monkeypatch.setattr(documents, "READS", (FORMAT + 1, FORMAT))
        monkeypatch.setattr(suspended_machine, "FORMAT", FORMAT + 1)
        assert kept.read(number).version == FORMAT
        assert suspended_machine.read(tmp_path / "waits", MACHINE, size) == state
        monkeypatch.setattr(documents, "READS", (FORMAT + 2, FORMAT + 1))
        for read in (lambda: kept.read(number), lambda: suspended_machine.read(tmp_path / "waits", MACHINE, size)):
            with pytest.raises(InvalidHandover, match=f"format {FORMAT}; this version reads {FORMAT + 2} and"):
                read()
    finally:
        os.close(number)


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
