"""The stores that the contract is asked of, and an attempt for them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.attempt import Attempt
from orchestrator.policy import MigrationPolicy
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.sqlite import SqliteStore
from vm_migration.daemon.etcd_place import EtcdPlace

OpenStore = Callable[[], SqliteStore] | Callable[[], EtcdStore]
"""Opens one and the same store each time, in any process."""


@dataclass(frozen=True)
class SqliteAt:
    """A store in a file."""

    path: Path

    def __call__(self) -> SqliteStore:
        return SqliteStore(self.path)


@dataclass(frozen=True)
class EtcdAt:
    """A store in etcd."""

    place: EtcdPlace
    site: str

    def __call__(self) -> EtcdStore:
        return EtcdStore(self.place, self.site)


def new(attempt: str = "a" * 8, machine: str = "m1", **changes: object) -> Attempt:
    row = Attempt(
        attempt=attempt,
        machine=machine,
        name="qat-guest",
        source="host-a",
        destination="host-b",
        policy=MigrationPolicy(),
        created_at=100.0,
        updated_at=100.0,
        driver="cli-1",
        heartbeat=100.0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # the fields that a test names
