"""A scenario run in this process: the same on every run, whatever the host and the hour."""

from typing import Final

from lab.observation import Observation
from lab.rehearsal.dirty_rate import measure_dirty_pages
from lab.rehearsal.migration import rehearse_migration
from lab.rehearsal.plan_only import make_plan
from lab.rehearsal.update import rehearse_update
from lab.scenario import Scenario
from vm_migration.errors import InvalidInput
from vmm.assembly.quantity_text import format_size
from vmm.vfio.host_port import HostCallFailed
from vmm.viommu.errors import CachingModeRequired

_MOST: Final = 30 << 40
"""A process has 128 TiB of addresses, and RAM is mapped four times: by both machines and by both hosts."""


def rehearse(scenario: Scenario) -> Observation:
    """Run a scenario to its end, and return what was seen; nothing of it is left behind.

    A machine whose devices cannot be assembled is blocked: its realize-time error says why.

    Raises:
        InvalidInput: The guest cannot do what the scenario tells it, or there are not enough addresses for its RAM.
    """
    size, kind = scenario.machine.memory.size, scenario.document.run.kind
    if kind != "plan" and size > _MOST:
        text = f"{scenario.name} runs with at most {format_size(_MOST)} of RAM, and has {format_size(size)}"
        raise InvalidInput("too-much-memory", text, 'A plan (run.kind = "plan") has no such limit')
    ways = {
        "migrate": rehearse_migration,
        "plan": make_plan,
        "dirty-rate": measure_dirty_pages,
        "update": rehearse_update,
    }
    try:
        return ways[kind](scenario)
    except (HostCallFailed, CachingModeRequired) as error:
        return Observation(outcome="failed", error=str(error))
