"""A scenario run in this process: the same on every run, whatever the host and the hour."""

from lab.observation import Observation
from lab.rehearsal.dirty_rate import measure_dirty_pages
from lab.rehearsal.migration import rehearse_migration
from lab.rehearsal.plan_only import make_plan
from lab.scenario import Scenario
from vmm.vfio.host_port import HostCallFailed
from vmm.viommu.errors import CachingModeRequired


def rehearse(scenario: Scenario) -> Observation:
    """Run a scenario to its end, and return what was seen; nothing of it is left behind.

    A machine whose devices cannot be assembled is blocked: its realize-time error says why.

    Raises:
        InvalidInput: The guest cannot do what the scenario tells it.
    """
    ways = {"migrate": rehearse_migration, "plan": make_plan, "dirty-rate": measure_dirty_pages}
    try:
        return ways[scenario.document.run.kind](scenario)
    except (HostCallFailed, CachingModeRequired) as error:
        return Observation(outcome="failed", error=str(error))
