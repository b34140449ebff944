"""Write docs/schemas from the document types; with --check, say whether the committed files are what it would write.

Programs that add commands to `viaduct` add their documents in the same way, by entry points (`viaduct.documents`).

Run as `python -m orchestrator.documents.schemas [--check] FOLDER`.
"""

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import msgspec

from orchestrator.documents import evacuation, listings, preflight, recovery, updates
from orchestrator.documents.migration import MigrationDocument
from orchestrator.documents.site import SiteDocument
from vm_migration.daemon.audit_file import Line

GROUP: Final = "viaduct.documents"


def _added() -> dict[str, type[msgspec.Struct]]:
    """Return the documents that other programs' commands print."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


DOCUMENTS: Final[dict[str, type[msgspec.Struct]]] = {
    "viaduct.migration.v1": MigrationDocument,
    "viaduct.preflight.v1": preflight.PreflightDocument,
    "viaduct.attempts.v1": listings.AttemptsDocument,
    "viaduct.attempt.v1": listings.OneAttemptDocument,
    "viaduct.machines.v1": listings.MachinesDocument,
    "viaduct.machine.v1": listings.OneMachineDocument,
    "viaduct.dirty_rate.v1": listings.DirtyRateDocument,
    "viaduct.hosts.v1": listings.HostsDocument,
    "viaduct.host.v1": listings.OneHostDocument,
    "viaduct.report.v1": listings.ReportDocument,
    "viaduct.site.v1": SiteDocument,
    "viaduct.pki.v1": listings.PkiDocument,
    "viaduct.version.v1": listings.VersionDocument,
    "viaduct.update.v1": updates.UpdateDocument,
    "viaduct.updates.v1": updates.UpdatesDocument,
    "viaduct.evacuation.v1": evacuation.EvacuationDocument,
    "viaduct.maintenance.v1": evacuation.MaintenanceDocument,
    "viaduct.error.v1": listings.ErrorDocument,
    "viaduct.doctor.v1": recovery.DoctorDocument,
    "viaduct.recover.v1": recovery.RecoverDocument,
    "viaduct.audit.v1": Line,
    **_added(),
}


def schema_text(name: str) -> str:
    """Return one document's JSON Schema as text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://viaduct.example/schemas/{name}.json",
        "title": name,
        **msgspec.json.schema(DOCUMENTS[name]),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def differences(folder: Path) -> list[str]:
    """Name every schema file that is missing, stale or left over."""
    wanted = {f"{name}.json": schema_text(name) for name in DOCUMENTS}
    stale = [
        name for name, text in wanted.items() if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    return stale + sorted(path.name for path in folder.glob("*.json") if path.name not in wanted)


def main() -> int:
    """Write the schemas, or check them."""
    folder = Path(sys.argv[-1])
    if "--check" in sys.argv[1:]:
        for name in (stale := differences(folder)):
            sys.stderr.write(f"{folder / name} is not what the document types say\n")
        return 1 if stale else 0
    for name in DOCUMENTS:
        (folder / f"{name}.json").write_text(schema_text(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
