"""Documents of commands, taken apart, and the rows that an orchestrator left."""

from pathlib import Path

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.policy import MigrationPolicy
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.recovery.journalled_hosts import ATTEMPT, MACHINE
from tests.orchestrator.test_viaduct_command import Json, Value


def rows(document: Json, key: str) -> list[Json]:
    found = document[key]
    assert isinstance(found, list)
    return [one for one in found if isinstance(one, dict)]


def each(document: Json, key: str, field: str) -> list[Value]:
    return [one[field] for one in rows(document, key)]


def open_row(config: Path) -> None:
    """Leave an attempt unresolved in the store, by a driver that is gone."""
    row = Attempt(ATTEMPT, MACHINE, "guest", "host-a", "host-b", MigrationPolicy(), 0.0, 0.0, epoch=2, driver="gone")
    with SqliteStore(config.parent / "orchestrator.db") as store:
        store.open_attempt(row)
        store.save(row.to(Phase.HANDING_OVER, Outcome.UNRESOLVED), 1.0)
