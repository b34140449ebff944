"""Many claims kept together: one look and one write for all, and each driver hears what is its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator import claims
from orchestrator.attempt import Attempt
from orchestrator.claims import Claims
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import OpenRow
from tests.orchestrator.stores import new
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import Stale

DEADLINE = 10.0


class CountedStore(SqliteStore):
    """A store that counts how often it is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: list[str] = []
        self.looked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def renew(self, attempts: Sequence[Attempt], now: float) -> frozenset[str]:
        self.asked.append(f"renew {len(attempts)}")
        return super().renew(attempts, now)

    def open_rows(self) -> tuple[OpenRow, ...]:
        self.asked.append("look")
        rows = super().open_rows()
        self._loop.call_soon_threadsafe(self.looked.set)
        return rows


@dataclass
class Row:
    """A row that somebody drives."""

    attempt: Attempt
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    bandwidth: int | None = None

    def hear(self, row: OpenRow) -> None:
        self.bandwidth = row.asked.bandwidth
        if row.cancel_requested:
            self.cancelled.set()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.0)


async def test_a_hundred_rows_are_one_question_and_one_write(tmp_path: Path) -> None:
    with CountedStore(tmp_path / "store.db") as store:
        rows = [Row(store.open_attempt(new(f"a{n}", machine=f"m{n}"))) for n in range(100)]
        kept = Claims(store, lambda: 130.0)
        async with asyncio.timeout(DEADLINE):
            tasks = [asyncio.create_task(kept.keep(row)) for row in rows]
            await store.looked.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert store.asked[:2] == ["renew 100", "look"]
        assert {row.heartbeat for row in store.open_rows()} == {130.0}


async def test_wishes_reach_the_row_that_they_are_for(tmp_path: Path) -> None:
    with CountedStore(tmp_path / "store.db") as store:
        wanted, other = (Row(store.open_attempt(new(name, machine=name))) for name in ("one", "two"))
        kept = Claims(store, lambda: 101.0)
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            tasks = [group.create_task(kept.keep(row)) for row in (wanted, other)]
            store.request_bandwidth("one", 7)
            store.request_cancel("one")
            await wanted.cancelled.wait()
            assert (wanted.bandwidth, other.bandwidth, other.cancelled.is_set()) == (7, None, False)
            for task in tasks:
                task.cancel()


async def test_who_lost_its_claim_hears_it_and_the_others_go_on(tmp_path: Path) -> None:
    with CountedStore(tmp_path / "store.db") as store:
        lost, held = (Row(store.open_attempt(new(name, machine=name))) for name in ("one", "two"))
        store.claim("one", "cli-2", 1000.0)
        kept = Claims(store, lambda: 101.0)
        async with asyncio.timeout(DEADLINE):
            going_on = asyncio.create_task(kept.keep(held))
            with pytest.raises(Stale, match="cli-2 in term 2"):
                await kept.keep(lost)
            store.looked.clear()
            await store.looked.wait()
            assert not going_on.done()
            going_on.cancel()
            await asyncio.wait({going_on})


async def test_what_a_source_told_since_is_written_with_the_claim(tmp_path: Path) -> None:
    with CountedStore(tmp_path / "store.db") as store:
        row = Row(store.open_attempt(new()))
        row.attempt = replace(row.attempt, report=source_pb2.AttemptReport(percent=42), updated_at=120.0)
        kept = Claims(store, lambda: 121.0)
        async with asyncio.timeout(DEADLINE):
            keeping = asyncio.create_task(kept.keep(row))
            await store.looked.wait()
            keeping.cancel()
            await asyncio.wait({keeping})
        written = store.get(row.attempt.attempt)
        assert written.report is not None
        assert (written.report.percent, written.updated_at, written.heartbeat) == (42, 120.0, 121.0)


async def test_a_fault_in_looking_ends_every_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CountedStore(tmp_path / "store.db") as store:
        rows = [Row(store.open_attempt(new(f"a{n}", machine=f"m{n}"))) for n in range(2)]

        def fails() -> tuple[OpenRow, ...]:
            raise ValueError("A fault of ours")

        monkeypatch.setattr(store, "open_rows", fails)
        kept = Claims(store, lambda: 101.0)
        async with asyncio.timeout(DEADLINE):
            ends = await asyncio.gather(*(kept.keep(row) for row in rows), return_exceptions=True)
        assert [type(end) for end in ends] == [ValueError, ValueError]
