from dataclasses import replace
from functools import cache

import pytest

from lab.catalogue import find, shipped
from lab.observation import Observation, disagreements
from lab.rehearsal.rehearsal import rehearse
from lab.scenario import SHIPPED, Scenario, UpdateSpecification
from vm_migration.errors import InvalidInput
from vmm.rules import Rules
from vmm.update.rules import UpdateRules

SCENARIOS = shipped()


@cache
def rehearsed(name: str) -> Observation:
    """Return what a scenario's first rehearsal has shown."""
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    return rehearse(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_shipped_scenario_shows_what_it_says(scenario: Scenario) -> None:
    assert disagreements(scenario.document.expect, rehearsed(scenario.name)) == ()


@pytest.mark.parametrize("file", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_a_rehearsal_is_the_same_on_every_run(file: str) -> None:
    scenario = find(file)[-1]
    assert rehearse(scenario) == rehearsed(scenario.name)


@pytest.mark.parametrize("kind", ["migrate", "dirty-rate"])
def test_ram_that_no_process_can_map_four_times_is_refused_in_words(kind: str) -> None:
    (scenario,) = (one for one in find("large-memory") if one.name.endswith("-128TiB") and "64KiB" in one.name)
    run = scenario.document.run.model_copy(update={"kind": kind})
    with pytest.raises(InvalidInput, match="at most 30TiB of RAM, and has 128TiB"):
        rehearse(replace(scenario, document=scenario.document.model_copy(update={"run": run})))


def test_each_switch_is_turned_off_in_some_scenario() -> None:
    off = {
        name for scenario in SCENARIOS for name, value in scenario.machine.rules.model_dump().items() if value is False
    }
    assert off == set(Rules.__dataclass_fields__) - {"set"}
    updates = [scenario.document.update.model_dump() for scenario in SCENARIOS]
    off = {name for update in updates for name, value in update.items() if value is False and name != "tracking"}
    assert off >= set(UpdateRules.__dataclass_fields__)
    assert off == {name for name, value in UpdateSpecification().model_dump().items() if value is True}


def test_every_claim_has_its_source() -> None:
    assert [scenario.name for scenario in SCENARIOS if not scenario.document.sources] == []
