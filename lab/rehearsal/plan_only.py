"""What is said of a machine before it moves, and nothing moved.

A plan looks at facts and sizes, never at contents: the machine is assembled and runs for a while with a little RAM,
so that it can be one of 128 TiB, which no process can map; what is said is said of the size that the scenario asks for.
"""

from dataclasses import replace
from typing import Final

from lab.observation import Observation
from lab.rehearsal.findings import seen_beforehand
from lab.rehearsal.plan import plan_of
from lab.rehearsal.side import assembled_side, boot
from lab.scenario import Scenario
from vmm.assembly.specification import MachineSpecification

_MAPPED: Final = 4 << 30
"""RAM above the PCI hole too, so that a device sees as many pieces of it as it would."""


def make_plan(scenario: Scenario) -> Observation:
    """Return the scenario's blockers, warnings and forecast."""
    ram = scenario.machine.memory.size
    with assembled_side(scenario, specification=_with_little_ram(scenario.machine)) as side:
        boot(side, scenario.document.run.seed)
        side.world.run_for(scenario.document.run.work_ms)
        blockers, warnings = side.machine.findings(ram)
        seen = seen_beforehand(side, plan_of(side, scenario, ram), blockers, warnings)
        return replace(seen, outcome="blocked") if seen.blockers else seen


def _with_little_ram(machine: MachineSpecification) -> MachineSpecification:
    if machine.memory.size <= _MAPPED:
        return machine
    return machine.model_copy(update={"memory": machine.memory.model_copy(update={"size": _MAPPED})})
