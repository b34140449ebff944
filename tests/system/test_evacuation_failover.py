"""An evacuation whose leading orchestrator is killed, or frozen and woken: it goes on, and nothing is done twice."""

import asyncio
import signal
from collections.abc import Iterator, Sequence

import pytest

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Outcome
from orchestrator.evacuation.kept import KeptEvacuations
from orchestrator.store.etcd.store import EtcdStore
from tests.system.attempts import DEADLINE, in_the_middle, require_whole, works
from tests.system.command import finished, running, viaduct
from tests.system.leaving import ENDLESS, in_order, machines, three
from tests.system.site import SITE, Site
from tests.system.two_orchestrators import Pair, two_orchestrators

WORDS = (
    "evacuate",
    "host-a",
    "--to",
    "host-b",
    "--parallel",
    "2",
    "--retries",
    "0",
    *ENDLESS,
    "--json",
)


@pytest.fixture
def pair(site: Site) -> Iterator[Pair]:
    with two_orchestrators(site) as running_pair:
        yield running_pair


def attempts_of(pair: Pair, machine: str) -> list[Attempt]:
    """Return a machine's attempts, oldest first."""
    with EtcdStore(pair.etcd.place, SITE) as store:
        found = [row for row in store.attempts(everything=True) if row.machine == machine]
    return sorted(found, key=lambda row: row.created_at)


async def taken_over(pair: Pair, by: str, in_flight: Sequence[str]) -> None:
    """Wait until the attempts of these machines are driven by somebody else, in the next term."""
    async with asyncio.timeout(DEADLINE):
        for uuid in in_flight:
            while [(row.driver, row.term) for row in attempts_of(pair, uuid)] != [(by, 2)]:  # noqa: ASYNC110 - in a store
                await asyncio.sleep(0.05)


async def hurry(site: Site, agents: Agents, pair: Pair, made: Sequence[str]) -> None:
    """Take their limits off the attempts, each once it is in its rounds: the last begins when another has ended."""
    for uuid in made:
        await in_the_middle(agents, "host-a", uuid)
        limits = ("--downtime-limit", "4s", "--max-bandwidth", "unlimited")
        tuned = await viaduct(site, "tune", attempts_of(pair, uuid)[-1].attempt, *limits, config=pair.operator)
        assert tuned.exit_code == 0, tuned.err


async def require_each_moved_once(site: Site, pair: Pair, made: Sequence[str], evacuation: str) -> None:
    """The plan has the store's attempts and no others, each drew one epoch, and each machine's last one moved it.

    What was in flight is one attempt from its begin to its end; what was only made ready is begun anew.
    """
    with EtcdStore(pair.etcd.place, SITE) as store:
        plan = KeptEvacuations(store.entries).find(evacuation)
    owners = {owner.machine: owner for owner in pair.owners()}
    assert plan.outcome == Outcome.COMPLETED
    for uuid in made:
        *before, last = attempts_of(pair, uuid)
        assert plan.move(uuid).attempts == (*(row.attempt for row in before), last.attempt)
        assert (last.outcome, owners[uuid].host) == (Outcome.COMPLETED, "host-b")
        assert owners[uuid].epoch == last.epoch == 2 + sum(bool(row.epoch) for row in before)
        assert {row.error.code if row.error else "" for row in before} <= {"driver-gone"}
        assert uuid not in made[:2] or (before, last.term) == ([], 2)
        assert last.report is not None
        require_whole(last.report)
        await works(site, "host-b", uuid)
    assert site.machines_at("host-a") == []


async def test_the_next_leader_goes_on_with_all_of_it_and_the_command_does_not_notice(
    site: Site, agents: Agents, pair: Pair
) -> None:
    first = await pair.led()
    async with three(site, agents) as created:
        async with running(site, *WORDS, config=pair.operator) as asked:
            made = await in_order(agents, created)
            pair.daemons[first].kill()
            await taken_over(pair, pair.other(first), made[:2])
            await hurry(site, agents, pair, made)
            gone = await finished(asked)
        assert (gone.exit_code, gone.document["outcome"]) == (0, "completed"), gone.err
        await require_each_moved_once(site, pair, made, str(gone.document["evacuation"]))


async def test_a_leader_that_was_frozen_meanwhile_wakes_up_and_moves_nothing_again(
    site: Site, agents: Agents, pair: Pair
) -> None:
    first = await pair.led()
    frozen = pair.daemons[first]
    async with three(site, agents) as created:
        taken = await viaduct(site, *WORDS, "--detach", config=pair.operator)
        assert taken.exit_code == 0, taken.err
        evacuation = str(taken.document["evacuation"])
        made = await in_order(agents, created)
        assert frozen.process is not None
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            await taken_over(pair, pair.other(first), made[:2])
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        await hurry(site, agents, pair, made)
        ended = await viaduct(site, "watch", evacuation, "--json", config=pair.operator)
        assert (ended.exit_code, ended.document["outcome"]) == (0, "completed"), ended.err
        assert [one["outcome"] for one in machines(ended)] == ["completed"] * 3
        await require_each_moved_once(site, pair, made, evacuation)
        assert await pair.led() in pair.daemons
        assert frozen.running
