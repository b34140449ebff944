import pytest

from lab.catalogue import shipped
from lab.observation import disagreements
from lab.rehearsal.rehearsal import rehearse
from lab.scenario import Scenario

SCENARIOS = shipped()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_shipped_scenario_shows_what_it_says_on_every_run(scenario: Scenario) -> None:
    seen = rehearse(scenario)
    assert disagreements(scenario.document.expect, seen) == ()
    assert rehearse(scenario) == seen
