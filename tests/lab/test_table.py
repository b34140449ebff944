import io

from rich.console import Console

from lab.catalogue import shipped_files
from lab.document import LabRow, row_of
from lab.observation import Observation
from lab.scenario import Scenario
from lab.table import show_rows, show_scenarios

SEEN = Observation(
    outcome="failed",
    error="vfio_container_dma_unmap(0x100000000000, 0x100000000000) = -7 (Argument list too long)",
    warnings=("no-dirty-tracking",),
    unmaps=111,
    flushes=12,
)


def printed(rows: list[LabRow], width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_rows(console, rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def every_row(seen: Observation) -> list[LabRow]:
    return [row_of(one, one.document.expect, seen, "in-process") for one in every_scenario()]


def every_scenario() -> list[Scenario]:
    return [one for scenarios in shipped_files().values() for one in scenarios]


def test_every_shipped_scenario_fits_into_120_columns() -> None:
    lines = printed(every_row(SEEN))
    table = lines[: lines.index(next(line for line in lines if ": " in line and line[0] not in " no"))]
    assert max(map(len, table)) <= 120
    for title in ("configuration", "expected", "seen", "lost", "flushes", "error"):
        assert title in table[1]
    assert any("type1_is_not_iommu_dirty_tracking" in line for line in table)


def test_a_name_is_cut_behind_hyphens_only() -> None:
    rows = every_row(SEEN)
    column = [line[4:38].rstrip() for line in printed(rows)[2:]]
    assert len({len(row.scenario) > 34 for row in rows}) == 2
    for row in rows:
        assert row.scenario in "".join(column)
        cut = [line for line in column if line and row.scenario.startswith(f"{line}") and len(line) > 20]
        assert all(line == row.scenario or line.endswith("-") or line in {one.scenario for one in rows} for line in cut)


def test_numbers_stand_in_their_columns_and_what_is_wrong_below() -> None:
    row = next(row for row in every_row(SEEN) if row.scenario == "unmap-by-mapping-on")
    lines = printed([row], 300)
    told = "completed, accepted, 0 lost   failed (warns no-dirty-tracking), 111 unmaps"
    said = f"no  unmap-by-mapping-on  {told}      -       12  {SEEN.error}"
    assert " ".join(lines[2].split()) == " ".join(said.split())
    assert "unmap-by-mapping-on: failed, not completed" in lines


def test_sizes_that_are_a_page_more_are_read_at_a_glance() -> None:
    row = next(row for row in every_row(SEEN) if row.scenario == "large-memory-8TiB-and-a-page")
    assert "8TiB + 4KiB" in row.configuration


def test_the_list_has_a_line_for_each_file_and_each_case() -> None:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    files = shipped_files()
    show_scenarios(console, files)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 120
    told = {line.split()[0] for line in lines if line.strip()}
    assert set(files) <= told
    assert {one.name for scenarios in files.values() if len(scenarios) > 1 for one in scenarios} <= told
