"""The laboratory's page against the scenarios and switches that there are."""

import re
from pathlib import Path

from lab.catalogue import shipped_files
from lab.scenario import UpdateSpecification
from vmm.rules import Rules

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.sub(r"\n\n.*", "", PAGE.partition("## Claim by claim\n\n")[2], flags=re.DOTALL).splitlines()[2:]
]


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_every_scenario_of_a_claim_can_be_run_and_every_file_shows_one() -> None:
    files = shipped_files()
    told = {name for row in ROWS for name in quoted(row[3])}
    assert not told - set(files) - {one.name for scenarios in files.values() for one in scenarios}
    assert not set(files) - told


def test_every_switch_stands_beside_a_claim() -> None:
    assert {name for row in ROWS for name in quoted(row[2])} == set(Rules.__dataclass_fields__) - {"set"}


def test_every_switch_of_an_update_stands_beside_the_patch_that_it_takes_away() -> None:
    told = quoted(PAGE.partition("| patch | switch in `[update]` |")[2].partition("\n\n")[0])
    on = {name for name, value in UpdateSpecification().model_dump().items() if value is True}
    assert {name for name in on if not name.startswith("host_")} <= told
