"""What is known of hosts between two askings, and many choices at a time over it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from orchestrator import known_hosts
from orchestrator.agents import Agents, Side
from orchestrator.destination import Beside, find_destination
from orchestrator.known_hosts import KnownHosts
from orchestrator.policy import MigrationPolicy
from tests.orchestrator.fake_agents import FakeSite, fake_site
from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_offer import HostOffer

GIB = 1 << 30
HOSTS = tuple(f"host-{letter}" for letter in "abcdef")


class CountedAgents(Agents):
    """Agents that count how often each host was asked what it is."""

    asked: Counter[str]

    async def describe_host(self, host: str, side: Side) -> types_pb2.HostFacts:
        self.asked[host] += 1
        return await super().describe_host(host, side)


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site(*HOSTS) as running:
        for host in HOSTS:
            running.world.script.facts[host] = types_pb2.HostFacts(
                version=VERSION,
                offer=HostOffer().message(),
                load=types_pb2.HostLoad(memory_free_bytes=60 * GIB, machines=1),
            )
        yield running


@pytest.fixture
async def agents(site: FakeSite) -> AsyncIterator[CountedAgents]:
    async with CountedAgents(site.addresses, None) as opened:
        opened.asked = Counter()
        yield opened


async def test_hosts_that_were_heard_just_now_are_not_asked_again(agents: CountedAgents) -> None:
    known = KnownHosts(agents)
    first = await known.standings(HOSTS[:2])
    assert await known.standings(HOSTS[:3]) == first | await known.standings(HOSTS[2:3])
    assert agents.asked == dict.fromkeys(HOSTS[:3], 1)


async def test_all_who_want_to_know_at_a_time_have_them_asked_once(agents: CountedAgents) -> None:
    known = KnownHosts(agents)
    found = await asyncio.gather(*(known.standings(HOSTS) for _ in range(20)))
    assert all(one == found[0] for one in found)
    assert agents.asked == dict.fromkeys(HOSTS, 1)


async def test_who_leaves_while_hosts_are_asked_takes_no_answer_from_the_others(agents: CountedAgents) -> None:
    known = KnownHosts(agents)
    leaving, staying = (asyncio.create_task(known.standings(HOSTS)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert set(await staying) == set(HOSTS)
    assert agents.asked == dict.fromkeys(HOSTS, 1)


async def test_what_was_chosen_is_on_its_way_until_the_host_is_heard_again(
    agents: CountedAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownHosts(agents)
    before = await known.standings(HOSTS)
    with known.considering(HOSTS[:2], 4 * GIB) as take:
        during = await known.standings(HOSTS)
        take("host-b")
    assert [during[host].memory_free for host in HOSTS[:3]] == [56 * GIB, 56 * GIB, 60 * GIB]
    after = await known.standings(HOSTS)
    assert (after["host-a"], after["host-b"].memory_free) == (before["host-a"], 56 * GIB)
    monkeypatch.setattr(known_hosts, "FRESH_SECONDS", 0.0)
    assert await known.standings(HOSTS) == before


async def test_what_is_being_considered_counts_also_where_the_host_is_heard_meanwhile(
    agents: CountedAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_hosts, "FRESH_SECONDS", 0.0)
    known = KnownHosts(agents)
    before = await known.standings(HOSTS)
    with known.considering(HOSTS[:1], 4 * GIB):
        assert (await known.standings(HOSTS))["host-a"].memory_free == 56 * GIB
    assert await known.standings(HOSTS) == before


async def test_choices_at_a_time_do_not_all_fall_on_one_host(site: FakeSite, agents: CountedAgents) -> None:
    names = [f"guest-{number}" for number in range(5)]
    machines = [site.world.machines[site.world.add(name, "host-a")] for name in names]
    beside = Beside(known=KnownHosts(agents))
    found = await asyncio.gather(*(find_destination(agents, one, MigrationPolicy(), beside) for one in machines))
    chosen = [one.chosen.host for one in found if one.chosen is not None]
    assert len(chosen) == 5
    assert len(set(chosen)) > 2
