"""What a person sends when asking for help: one archive, with no secret in it.

::

    report.json           viaduct.doctor.v1
    custodies/HOST.json   every journal's last record without its secret, every process, what is left over
    configuration.json    as it was read, without passwords; keys are named by path, never read
    versions.json         of this program, of Python, of every agent
"""

import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from orchestrator.diagnosis.diagnosis import Diagnosis
from orchestrator.diagnosis.views import HostView
from orchestrator.documents.recovery import DoctorDocument
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import Refused

_HINT: Final = "Name another file, or remove that one"


def require_new(path: Path) -> None:
    """Accept the name of a file that is yet to be written.

    Raises:
        Refused: It is there, or its folder is not.
    """
    if path.exists():
        raise Refused("file-exists", f"{path} exists already", _HINT)
    if not path.absolute().parent.is_dir():
        raise Refused("no-folder", f"There is no folder {path.absolute().parent}", "Make it, or name another file")


def write_bundle(
    path: Path, report: DoctorDocument, found: Diagnosis, configuration: Configuration, now: float
) -> None:
    """Write the archive, for its owner only; `now` is seconds since 1970.

    Raises:
        Refused: The file is there already, or cannot be written.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, data in _contents(report, found, configuration).items():
                entry = tarfile.TarInfo(f"viaduct-doctor/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
                archive.addfile(entry, io.BytesIO(data))
    except FileExistsError:
        raise Refused("file-exists", f"{path} exists already", _HINT) from None
    except OSError as error:
        raise Refused("bundle-unwritable", f"{path} cannot be written: {error.strerror or error}", _HINT) from None


def _contents(report: DoctorDocument, found: Diagnosis, configuration: Configuration) -> dict[str, bytes]:
    hosts = {f"custodies/{host}.json": _json(_host(view)) for host, view in found.site.hosts.items()}
    return {
        "report.json": msgspec.json.format(msgspec.json.encode(report), indent=2),
        **hosts,
        "configuration.json": _json(_configuration(configuration)),
        "versions.json": _json(_versions(found)),
    }


def _host(view: HostView) -> dict[str, object]:
    return {
        "source": str(view.source.error or view.source.version),
        "dest": str(view.dest.error or view.dest.version),
        "custodies": [msgspec.to_builtins(copy) for copy in view.copies.values()],
        "leftovers": [msgspec.to_builtins(one) for one in view.leftovers],
    }


def _configuration(configuration: Configuration) -> dict[str, object]:
    sections = {
        "site": configuration.site,
        "mqtt": configuration.mqtt,
        "tls": configuration.tls,
        "agent": configuration.agent,
        "audit": configuration.audit,
        "metrics": configuration.metrics,
        "hooks": configuration.hooks,
    }
    told: dict[str, object] = {
        name: section.model_dump(mode="json", exclude={"password"})
        for name, section in sections.items()
        if section is not None
    }
    told["host"] = {name: host.model_dump(mode="json") for name, host in configuration.host.items()}
    return told


def _versions(found: Diagnosis) -> dict[str, object]:
    agents = {
        host: {"source": view.source.version, "dest": view.dest.version} for host, view in found.site.hosts.items()
    }
    return {"viaduct": VERSION, "python": sys.version, "system": platform.platform(), "agents": agents}


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2, default=str).encode()
