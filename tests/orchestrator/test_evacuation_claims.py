"""Who drives an evacuation says so in time, however long it waits for the store, the entrance or a host."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.admission import Order
from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Outcome
from orchestrator.evacuation import course
from orchestrator.evacuation.course import Course
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.inventory import Survey
from orchestrator.queueing import Slots
from orchestrator.slot_book import SlotBook
from orchestrator.store.claim import CLAIM_SECONDS
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings
from tests.orchestrator.conftest import RecordedHooks
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import InvalidInput

LONG = 6 * CLAIM_SECONDS
PLAN = Evacuation(
    "ev-1", Kind.EVACUATE, "host-a", (Move("m", "web", 1),), 1.0, 1.0, to=("host-b",), driver="orchestrator"
)


@dataclass
class Watched:
    """An evacuation that is driven, and the claim that others see."""

    store: SqliteStore
    loop: VirtualLoop
    wait: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    ages: list[float] = field(default_factory=list)
    ends = 0

    async def submit(self, order: Order) -> Attempt:
        """Refuse for good what was waited for."""
        await self.wait()
        raise InvalidInput("unknown", f"Nothing is known of {order.machine}")

    async def cancel(self, attempt: Attempt) -> Attempt:
        """Be asked for nothing of the kind."""
        raise AssertionError(attempt)

    async def ended(self, seen: int, seconds: float, of: Collection[str]) -> None:
        """Wait for so long."""
        assert (seen, set(of)) == (0, {PLAN.evacuation})
        await asyncio.sleep(seconds)  # virtual time

    def touch(self, subject: str) -> None:
        """Wake nobody."""

    def look_again(self) -> None:
        """Decide nothing."""

    async def driven(self, agents: Agents) -> Evacuation:
        """Drive it to its end."""
        around = Surroundings(
            self.store,
            agents,
            RecordedHooks(),
            "orchestrator",
            self.loop.time,
            observe_evacuation=lambda _: self.ages.append(self.age),
        )
        return await Course(PLAN, around, self, SlotBook(Slots()), self.turns).run()

    @property
    def age(self) -> float:
        """Return how old the claim is that others see."""
        return self.loop.time() - KeptEvacuations(self.store.entries).find(PLAN.evacuation).heartbeat

    async def watched(self) -> None:
        """Look at the claim for a long while."""
        for _ in range(round(LONG)):
            await asyncio.sleep(1.0)  # virtual time
            self.ages.append(self.age)


@contextmanager
def entered(folder: Path) -> Iterator[SqliteStore]:
    with SqliteStore(folder / "orchestrator.db") as store:
        KeptEvacuations(store.entries).enter(PLAN)
        yield store


def test_a_claim_is_renewed_while_an_attempt_waits_at_the_entrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(loop: VirtualLoop) -> Evacuation:
        there = Watched(store, loop)
        there.wait = there.watched
        ended = await there.driven(agents)
        assert len(there.ages) > LONG
        assert max(there.ages) < CLAIM_SECONDS / 2
        return ended

    async def told(_agents: Agents, _host: str) -> Survey:
        return Survey((MachineStatus(machine="m", name="web", host="host-a", state="OWNED"),), {})

    monkeypatch.setattr(course, "told_by", told)
    agents = Agents({}, None)
    with entered(tmp_path) as store:
        assert in_virtual_time(scenario).outcome == Outcome.REFUSED


def test_a_claim_is_written_as_old_as_it_is_when_its_turn_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(loop: VirtualLoop) -> Evacuation:
        there = Watched(store, loop)
        async with there.turns:
            driving = asyncio.create_task(there.driven(agents))
            await asyncio.sleep(LONG)  # virtual time
        ended = await driving
        assert max(there.ages) < CLAIM_SECONDS / 2
        return ended

    async def told(_agents: Agents, _host: str) -> Survey:
        return Survey((), {})

    monkeypatch.setattr(course, "told_by", told)
    agents = Agents({}, None)
    with entered(tmp_path) as store:
        assert in_virtual_time(scenario).outcome == Outcome.COMPLETED
