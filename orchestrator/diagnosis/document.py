"""A diagnosis -> `viaduct.doctor.v1`. Pure."""

from orchestrator.diagnosis.diagnosis import Diagnosis
from orchestrator.diagnosis.finding import Finding
from orchestrator.diagnosis.placing import Place
from orchestrator.diagnosis.views import Copy, HostView, MachineView
from orchestrator.documents.recovery import (
    CopyDocument,
    DoctorDocument,
    ExaminedHostDocument,
    FindingDocument,
    PlacedMachineDocument,
)


def doctor_document(site: str, found: Diagnosis) -> DoctorDocument:
    """Return what the doctor found at the site of that name."""
    return DoctorDocument(
        schema_name="viaduct.doctor.v1",
        site=site,
        hosts=tuple(_host(one) for one in found.site.hosts.values()),
        machines=tuple(_machine(machine, place) for machine, place in found.machines),
        findings=tuple(_finding(one) for one in found.findings),
    )


def _host(host: HostView) -> ExaminedHostDocument:
    version = host.source.version or host.dest.version or None
    return ExaminedHostDocument(host.host, host.source.word, host.dest.word, version)


def _machine(machine: MachineView, place: Place) -> PlacedMachineDocument:
    copies = tuple(_copy(copy) for copy in machine.copies.values())
    return PlacedMachineDocument(machine.machine, machine.name, place.owner, place.epoch, place.state, copies)


def _copy(copy: Copy) -> CopyDocument:
    record = copy.record
    return CopyDocument(
        host=copy.host,
        state=None if record is None else record.state.value,
        epoch=0 if record is None else record.epoch,
        owned_epoch=0 if record is None else record.owned_epoch,
        attempt=None if record is None else record.attempt,
        pause=copy.pause if record is None else record.pause,
        process=copy.process.value,
        run_state=copy.run_state,
        complaint=copy.complaint,
    )


def _finding(one: Finding) -> FindingDocument:
    return FindingDocument(
        code=one.code.value,
        severity=one.severity,
        host=one.host or None,
        machine=one.machine or None,
        attempt=one.attempt or None,
        message=one.message,
        hint=one.hint,
    )
