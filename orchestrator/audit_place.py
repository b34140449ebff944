"""Where the orchestrator, and commands that give an operator's word, keep their audit log."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.site import store_path
from vm_migration.daemon.audit_file import AUDIT_LOG
from vm_migration.daemon.configuration import Configuration


def audit_place(configuration: Configuration, environment: Mapping[str, str]) -> Path:
    """Return the file: as configured, or beside the store.

    Raises:
        InvalidInput: Not configured, and the store is none that this version has.
    """
    return configuration.audit.file or store_path(configuration.site.store, environment).with_name(AUDIT_LOG)
