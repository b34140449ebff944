import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Notice
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings
from tests.orchestrator.etcd_process import Etcd, running_etcd
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.stores import EtcdAt, OpenStore, SqliteAt
from vm_migration.errors import MigrationError


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with running_etcd(tmp_path_factory.mktemp("etcd"), fsync=False) as running:
        yield running


@pytest.fixture(params=["sqlite", "etcd"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """What opens the store that a test is about: one of each kind, which nobody has used before."""
    if request.param == "sqlite":
        return SqliteAt(tmp_path / "state" / "orchestrator.db")
    etcd: Etcd = request.getfixturevalue("etcd")
    return EtcdAt(etcd.place, etcd.new_site())


class RecordedHooks:
    """Notes which hooks ran; `refusal` makes before_prepare fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.refusal: MigrationError | None = None

    async def before_prepare(self, attempt: Attempt) -> None:
        assert attempt.epoch
        self.ran.append("before_prepare")
        if self.refusal is not None:
            raise self.refusal

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        self.ran.append("after_abort")
        return (Notice("hook-failed", "tell-operator exited 1"),)


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b") as running:
        yield running


@pytest.fixture
def hooks() -> RecordedHooks:
    return RecordedHooks()


@pytest.fixture
async def around(site: FakeSite, hooks: RecordedHooks, tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with contextlib.AsyncExitStack() as stack:
        agents = await stack.enter_async_context(Agents(site.addresses, None))
        store = stack.enter_context(SqliteStore(tmp_path / "orchestrator.db"))
        yield Surroundings(store, agents, hooks, "cli-test-1", time.time, patience=1.0)
