"""Where the orchestrator, and commands that give an operator's word, keep their audit log."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.site import store_path
from vm_migration.daemon.audit_file import AUDIT_LOG
from vm_migration.daemon.configuration import Configuration


def audit_place(configuration: Configuration, environment: Mapping[str, str]) -> Path:
    """Return the file: as configured, or beside the store; or where the store would be, were it not in etcd."""
    if configuration.audit.file is not None:
        return configuration.audit.file
    store = None if configuration.etcd_place() is not None else configuration.site.store
    return store_path(store, environment).with_name(AUDIT_LOG)
