"""Thirty simulated hosts behind the real API, with certificates: several are emptied at once, with few questions."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from benchmarks.scale.fleet import GIB, Fleet, FleetDescription, Happened, Pace, Place, written
from benchmarks.scale.serving import served
from benchmarks.scale.site import certificates, names
from orchestrator import service
from orchestrator.admission import Order, admit
from orchestrator.agents import Agents, HostAddresses, Side
from orchestrator.attempt import Attempt, Outcome
from orchestrator.driving import Driving, driving
from orchestrator.entrance import Entrance
from orchestrator.evacuation.course import Course
from orchestrator.evacuation.order import EvacuationOrder
from orchestrator.evacuation.plan import Evacuation, Kind
from orchestrator.evacuation.view import EvacuationView
from orchestrator.store.sqlite import SqliteStore
from orchestrator.surroundings import Surroundings
from tests.orchestrator.conftest import RecordedHooks
from tests.system.attempts import specification
from tests.system.site import SITE
from vm_migration.api.v1 import types_pb2
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.ports import free_ports

HOSTS, MACHINES = 30, 3
EMPTIED = names(HOSTS)[:5]
DEADLINE = 30.0


class CountedAgents(Agents):
    """Agents that count the questions that go to many hosts."""

    counted: Counter[str]

    async def describe_host(self, host: str, side: Side) -> types_pb2.HostFacts:
        self.counted["described"] += 1
        return await super().describe_host(host, side)

    async def list_machines(self, host: str) -> tuple[types_pb2.MachineStatus, ...]:
        self.counted["listed"] += 1
        return await super().list_machines(host)


@dataclass
class Site:
    """The hosts, what happened at them, and what drives them."""

    fleet: Fleet
    happened: list[Happened]
    agents: CountedAgents
    around: Surroundings


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    pki = certificates(tmp_path / "pki", HOSTS)
    ports = iter(free_ports(2 * HOSTS))
    places = {host: Place(f"127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}") for host in names(HOSTS)}
    text = written(specification("NAME", memory_size="4GiB"))
    pace = Pace(pre_copy=0.2, others=0.0)
    description = FleetDescription(SITE, str(pki), places, MACHINES, 4 * GIB, 64 * GIB, 0, text, pace)
    happened: list[Happened] = []
    addresses = {host: HostAddresses(place.source, place.dest) for host, place in places.items()}
    tls = TlsFiles(pki / "ca.pem", pki / "orchestrator.pem", pki / "orchestrator.key")
    async with contextlib.AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(served(description, happened.append))
        agents = await stack.enter_async_context(CountedAgents(addresses, tls))
        agents.counted = Counter()
        store = stack.enter_context(SqliteStore(tmp_path / "orchestrator.db"))
        around = Surroundings(store, agents, RecordedHooks(), "orchestrator", time.time)
        yield Site(fleet, happened, agents, around)


@dataclass
class Crowd:
    """How many are at something at a time, on any thread."""

    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


@pytest.fixture
def crowds(monkeypatch: pytest.MonkeyPatch) -> tuple[Crowd, Crowd]:
    """How many orders are looked at closely at a time, where two may be, and how many evacuations are at the store.

    The first of either waits there for the second: that two are is not left to the scheduler.
    """
    orders, courses = Crowd(), Crowd()
    order_numbers, course_numbers = itertools.count(), itertools.count()
    two_orders, two_courses = asyncio.Barrier(2), threading.Barrier(2, timeout=DEADLINE)
    followed = Course._followed

    async def admit_one(around: Surroundings, order: Order, *, check: bool = False) -> Attempt:
        with orders:
            if next(order_numbers) < two_orders.parties:
                await two_orders.wait()
            return await admit(around, order, check=check)

    def follow_one(course: Course, now: float, fraction: float) -> tuple[Evacuation, Evacuation, Collection[Attempt]]:
        with courses:
            if next(course_numbers) < two_courses.parties:
                two_courses.wait()
            return followed(course, now, fraction)

    monkeypatch.setattr(service, "admit", admit_one)
    monkeypatch.setattr(service, "Entrance", partial(Entrance, 2, DEADLINE))
    monkeypatch.setattr(Course, "_followed", follow_one)
    return orders, courses


async def test_many_hosts_are_emptied_at_once_onto_many_and_all_of_them_are_asked_once(
    site: Site, crowds: tuple[Crowd, Crowd]
) -> None:
    async with asyncio.timeout(DEADLINE), driving(site.around, sole=True) as at_work:
        ended = await emptied(at_work)
    assert [crowd.most for crowd in crowds] == [2, 2], "attempts in flight are told behind no more than that"
    assert {move.outcome for view in ended for move in view.moves} == {Outcome.COMPLETED}
    assert [len(site.fleet.at[host]) for host in EMPTIED] == [0] * len(EMPTIED)
    arrived = [len(machines) - MACHINES for host, machines in site.fleet.at.items() if host not in EMPTIED]
    assert (sum(arrived), max(arrived)) == (len(EMPTIED) * MACHINES, 1)  # 25 hosts are as good as each other
    assert site.agents.counted["listed"] == len(EMPTIED) * (1 + MACHINES)  # and never all hosts
    moved = len(EMPTIED) * MACHINES
    assert site.agents.counted["described"] < 2 * (2 * HOSTS) + 12 * moved


async def test_what_is_in_flight_over_many_hosts_is_taken_up_by_the_next_life_and_moves_once(site: Site) -> None:
    async with asyncio.timeout(DEADLINE):
        async with driving(site.around, sole=True) as first:
            plans = await ordered(first)
            while sum(one.what == "begun" for one in site.happened) < len(EMPTIED):
                await first.queue.changed(first.queue.version, 1.0)
        async with driving(site.around, sole=True) as second:
            ended = [await second.evacuations.ended(plan) for plan in plans]
    assert {move.outcome for view in ended for move in view.moves} == {Outcome.COMPLETED}
    assert sum(len(machines) for machines in site.fleet.at.values()) == HOSTS * MACHINES
    completed = Counter(one.attempt for one in site.happened if one.what == "completed")
    assert (len(completed), set(completed.values())) == (len(EMPTIED) * MACHINES, {1})
    assert any(one.what == "term 2" for one in site.happened)


async def ordered(at_work: Driving) -> list[str]:
    """Order all of them to be emptied at once."""
    orders = [EvacuationOrder(Kind.EVACUATE, host, parallel=2) for host in EMPTIED]
    views = await asyncio.gather(*(at_work.evacuations.submit(order) for order in orders))
    return [view.evacuation for view in views]


async def emptied(at_work: Driving) -> list[EvacuationView]:
    """Have them emptied, and return what came of each."""
    return [await at_work.evacuations.ended(plan) for plan in await ordered(at_work)]
