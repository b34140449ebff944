"""The grid of predictions, and the scenarios: machines that can be made, and as varied as the table asks for."""

import pytest

from benchmarks.beside.prediction_grid import GRID, PredictedRun
from benchmarks.beside.scenarios import SCENARIOS, Scenario
from vmm.assembly.specification import check_specification


@pytest.mark.parametrize("run", GRID, ids=lambda run: run.name)
def test_every_machine_of_the_grid_can_be_made(run: PredictedRun) -> None:
    assert check_specification(run.specification("/image"), run.name).memory.size == run.size << 20


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenarios_machine_can_be_made(scenario: Scenario) -> None:
    assert check_specification(scenario.specification("/image"), scenario.name).memory.size == scenario.size


def test_there_are_twenty_different_runs() -> None:
    assert len({run.name for run in GRID}) == 20


def test_the_grid_varies_in_everything_that_it_names() -> None:
    for values in (
        {run.link for run in GRID},
        {run.size for run in GRID},
        {run.content for run in GRID},
        {run.pattern for run in GRID},
        {run.limit_ms for run in GRID},
    ):
        assert len(values) >= 3
    assert {run.device for run in GRID} == {"none", "qat", "nic", "gpu"}
