"""What one look finds, and what two looks agree on. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.diagnosis.finding import Finding
from orchestrator.diagnosis.machine_findings import machine_findings
from orchestrator.diagnosis.placing import Place, place
from orchestrator.diagnosis.site_findings import site_findings
from orchestrator.diagnosis.views import MachineView, SiteView


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The site as it was seen last, and what is wrong with it, problems first."""

    site: SiteView
    machines: tuple[tuple[MachineView, Place], ...]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """How many findings are more than notices."""
        return sum(one.severity == "problem" for one in self.findings)

    def with_more(self, findings: Iterable[Finding]) -> "Diagnosis":
        """Return it with what was found beside the hosts."""
        return Diagnosis(self.site, self.machines, _in_order((*self.findings, *findings)))


def agreed(first: Diagnosis, site: SiteView) -> Diagnosis:
    """Return what a second look finds too."""
    known = {one.subject for one in first.findings if one.severity == "problem"}
    second = diagnosis(site)
    kept = tuple(one for one in second.findings if one.severity == "notice" or one.subject in known)
    return Diagnosis(site, _placed(site, kept), _in_order(kept))


def diagnosis(site: SiteView) -> Diagnosis:
    """Return what one look finds."""
    found = [one for machine in site.machines for one in machine_findings(site, machine)]
    found += site_findings(site)
    return Diagnosis(site, _placed(site, found), _in_order(found))


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: one.severity == "notice"))


def _placed(site: SiteView, findings: Iterable[Finding]) -> tuple[tuple[MachineView, Place], ...]:
    of_machine: dict[str, list[Finding]] = {}
    for one in findings:
        of_machine.setdefault(one.machine, []).append(one)
    places = ((machine, place(site, machine, of_machine.get(machine.machine, ()))) for machine in site.machines)
    return tuple((machine, where) for machine, where in places if where is not None)
