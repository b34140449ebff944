"""Two orchestrators over one etcd: whatever happens to the one that leads, what is in flight goes on."""

import signal
from collections.abc import Iterator

import pytest

from orchestrator.agents import Agents
from orchestrator.attempt import Outcome
from orchestrator.store.store import Ownership
from tests.system.attempts import ENDLESS, in_the_middle, machine, specification, works
from tests.system.command import finished, running, viaduct
from tests.system.site import Site
from tests.system.two_orchestrators import Pair, two_orchestrators
from vm_migration.errors import Stale

pytestmark = pytest.mark.timeout(300)  # many processes start in each of them

PATIENT = ("--downtime-limit", "2s", "--measure", "0s", "--json")


@pytest.fixture
def pair(site: Site) -> Iterator[Pair]:
    with two_orchestrators(site) as running_pair:
        yield running_pair


async def test_when_the_leader_is_killed_the_other_goes_on_and_the_command_does_not_notice(
    site: Site, agents: Agents, pair: Pair
) -> None:
    first = await pair.led()
    async with machine(site, agents, specification("taken")) as created:
        words = ("migrate", "taken", "--to", "host-b", *ENDLESS, "--json")
        async with running(site, *words, config=pair.operator) as asked:
            await in_the_middle(agents, "host-a", created.machine)
            key = (await pair.row()).key()
            pair.daemons[first].kill()
            taken = await pair.row(term=2)
            assert (taken.driver, taken.term) == (pair.other(first), 2)
            tuned = await viaduct(
                site, "tune", taken.attempt, "--downtime-limit", "4s", "--max-bandwidth", "1GiB/s", config=pair.operator
            )
            assert tuned.exit_code == 0, tuned.err
            with pytest.raises(Stale) as refusal:
                await agents.cancel("host-a", key)
            assert refusal.value.code == "stale-term"
            moved = await finished(asked)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        told = await viaduct(site, "doctor", "--json", config=pair.operator)
        findings = told.document["findings"]
        assert isinstance(findings, list)
        assert "orchestrator-silent" in {finding["code"] for finding in findings}
        assert pair.owners() == (Ownership(created.machine, "taken", "host-b", 2),)
        await works(site, "host-b", created.machine)
        pair.daemons[first].start()
        assert await pair.led() in pair.daemons


async def test_a_frozen_leader_that_wakes_up_harms_nothing_and_stands_by(
    site: Site, agents: Agents, pair: Pair
) -> None:
    first = await pair.led()
    async with machine(site, agents, specification("woken")) as created:
        words = ("migrate", "woken", "--to", "host-b", *ENDLESS, "--detach", "--json")
        asked = await viaduct(site, *words, config=pair.operator)
        assert asked.exit_code == 0, asked.err
        await in_the_middle(agents, "host-a", created.machine)
        frozen = pair.daemons[first]
        assert frozen.process is not None
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            taken = await pair.row(term=2)
            assert (taken.driver, taken.term) == (pair.other(first), 2)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        attempt = str(asked.document["attempt"])
        assert (await viaduct(site, "force", attempt, config=pair.operator)).exit_code == 0
        ended = await viaduct(site, "watch", attempt, "--json", config=pair.operator)
        assert (ended.exit_code, ended.document["outcome"]) == (0, "completed"), ended.err
        (row,) = (await pair.row(term=2),)
        assert (row.driver, row.term) == (pair.other(first), 2)
        assert await pair.led() in pair.daemons
        assert frozen.running
        await works(site, "host-b", created.machine)


async def test_one_that_is_stopped_hands_over_and_what_waits_is_driven(site: Site, agents: Agents, pair: Pair) -> None:
    first = await pair.led()
    async with (
        machine(site, agents, specification("ahead")) as ahead,
        machine(site, agents, specification("behind")) as behind,
    ):
        attempts = []
        for name, limits in (("ahead", ENDLESS), ("behind", PATIENT)):
            words = ("migrate", name, "--to", "host-b", *limits, "--detach", "--json")
            taken = await viaduct(site, *dict.fromkeys(words), config=pair.operator)
            assert taken.exit_code == 0, taken.err
            attempts.append(str(taken.document["attempt"]))
        await in_the_middle(agents, "host-a", ahead.machine)
        pair.daemons[first].stop()
        assert (await viaduct(site, "cancel", attempts[0], config=pair.operator)).exit_code == 0
        moved = await viaduct(site, "watch", attempts[1], "--json", config=pair.operator)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        await works(site, "host-a", ahead.machine)
        await works(site, "host-b", behind.machine)


async def test_without_a_majority_of_etcd_nothing_new_starts_and_what_runs_goes_on(site: Site, agents: Agents) -> None:
    with two_orchestrators(site, members=3) as pair:
        config = pair.operator
        async with (
            machine(site, agents, specification("runs")) as runs,
            machine(site, agents, specification("waits")) as waits,
        ):
            words = ("migrate", "runs", "--to", "host-b", *ENDLESS, "--detach", "--json")
            asked = await viaduct(site, *words, config=config)
            assert asked.exit_code == 0, asked.err
            await in_the_middle(agents, "host-a", runs.machine)
            key = (await pair.row()).key()
            for member in pair.etcd.members[:2]:
                member.kill()
            refused = await viaduct(site, "migrate", "waits", "--to", "host-b", *PATIENT, config=config)
            assert refused.exit_code == 3, refused.err
            error = refused.document["error"]
            assert isinstance(error, dict)
            assert error["code"] == "store-unusable"
            assert "majority" in error["message"]
            told = await viaduct(site, "doctor", "--json", config=config)
            findings = told.document["findings"]
            assert isinstance(findings, list)
            assert "store-unusable" in {finding["code"] for finding in findings}
            await agents.force("host-a", key)
            await works(site, "host-b", runs.machine)
            assert site.states("host-a", waits.machine) == ["OWNER"]
            for member in pair.etcd.members[:2]:
                member.start()
            pair.etcd.answers()
            assert (await pair.row(ended=True)).outcome == Outcome.COMPLETED
            moved = await viaduct(site, "migrate", "waits", "--to", "host-b", *PATIENT, config=config)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            await works(site, "host-b", waits.machine)
