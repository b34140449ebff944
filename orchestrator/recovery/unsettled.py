"""Which machines are not settled, who has to go on with each, and whether waiting helps: pure."""

from dataclasses import dataclass
from typing import Final

from orchestrator.diagnosis.finding import Code, Finding
from orchestrator.diagnosis.machine_findings import machine_findings
from orchestrator.diagnosis.site_findings import left_over
from orchestrator.diagnosis.views import MachineView, SiteView
from orchestrator.recovery.steps import Unsettled

_PERSONS: Final = frozenset({Code.TWO_RUNNING, Code.CONTRADICTION, Code.ACTIVATION_UNKNOWN})
"""No agent can decide it, however long anybody waits."""
_AGENTS: Final = frozenset(
    {
        Code.OUTRANKED,
        Code.HANDOVER_WAITING,
        Code.FORMER_SOURCE_OPEN,
        Code.RUN_STATE_OWED,
        Code.ABANDONED_IMAGE,
        Code.AGENT_COMPLAINS,
    }
)
"""An agent goes on with it, if it and its peer are there."""
_TIDIES: Final = frozenset({Code.MACHINE_GONE, Code.LEFTOVER_FOLDER, Code.LEFTOVER_PROCESS})
"""An agent is asked once, and may have nothing to add: who owns the machine is not in question."""


@dataclass(frozen=True, slots=True)
class Open:
    """One machine that is not settled; `hosts` are those that can be asked to go on."""

    machine: MachineView
    findings: tuple[Finding, ...]
    hosts: tuple[str, ...]
    waits: bool
    """Asking again may help; without it, what is missing is a person, or a host."""

    @property
    def unresolved(self) -> tuple[Unsettled, ...]:
        """What of it is still open when nobody goes on any more."""
        kept = (one for one in self.findings if one.code in _PERSONS | _AGENTS)
        return tuple(Unsettled(self.machine.machine, self.machine.name, one.message, one.hint) for one in kept)


def unsettled(site: SiteView, machine: MachineView) -> Open | None:
    """Return what is open of a machine, or None."""
    left = [left_over(host.host, one) for host in site.hosts.values() for one in host.leftovers]
    seen = [*machine_findings(site, machine), *(one for one in left if one.machine == machine.machine)]
    found = tuple(one for one in seen if one.code in _PERSONS | _AGENTS | _TIDIES)
    if not found:
        return None
    return Open(machine, found, tuple(sorted(machine.copies)), any(_may_come(site, machine, one) for one in found))


def _may_come(site: SiteView, machine: MachineView, finding: Finding) -> bool:
    """Tell whether agents that are there can settle it: both of each host that has to do with it."""
    if finding.code not in _AGENTS:
        return False
    records = machine.records
    if finding.code is Code.FORMER_SOURCE_OPEN:
        concerned = {finding.host, records[finding.host].peer}
    else:
        concerned = {finding.host, *(host for host, record in records.items() if not record.closed)}
        concerned |= {record.peer for record in records.values() if not record.closed}
    return all(_goes_on(site, host) for host in concerned - {""})


def _goes_on(site: SiteView, host: str) -> bool:
    view = site.hosts.get(host)
    return view is not None and view.source.error is None and view.dest.error is None
