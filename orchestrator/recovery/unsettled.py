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
    peers = {record.peer for record in machine.records.values()}
    hosts = tuple(host for host in sorted({*machine.copies, *peers} - {""}) if site.answers(host))
    return Open(machine, found, hosts, any(_may_come(site, machine, one) for one in found))


def _may_come(site: SiteView, machine: MachineView, finding: Finding) -> bool:
    if finding.code not in _AGENTS:
        return False
    if finding.code is Code.FORMER_SOURCE_OPEN:
        record = machine.records.get(finding.host)
        return record is not None and site.answers(record.peer)
    return _tells(site, machine, finding.host)


def _tells(site: SiteView, machine: MachineView, host: str) -> bool:
    return site.answers(host) and host in machine.records
