"""Force and tune as a person gives them: to the source, whoever drives."""

from orchestrator.agents import Agents
from tests.system.attempts import ENDLESS, in_the_middle, machine, specification, works
from tests.system.command import finished, running, viaduct
from tests.system.site import Site

"""Limits under which the rounds of a busy machine do not end."""


async def test_a_forced_attempt_switches_over_whatever_the_standstill(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("forced")) as created:
        async with running(site, "migrate", "forced", "--to", "host-b", *ENDLESS, "--json") as driving:
            await in_the_middle(agents, "host-a", created.machine)
            attempt = (await agents.get_machine("host-a", created.machine)).attempt
            said = await viaduct(site, "force", attempt[:8], "--json")
            assert said.exit_code == 0, said.err
            moved = await finished(driving)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        assert moved.document["attempt"] == attempt
        assert moved.document["pages_mismatched"] == 0
        await works(site, "host-b", created.machine)
        again = await viaduct(site, "force", attempt)
        assert again.exit_code == 3
        assert "has ended" in again.err


async def test_an_attempt_converges_when_its_limits_are_tuned(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("tuned")) as created:
        async with running(site, "migrate", "tuned", "--to", "host-b", *ENDLESS, "--json") as driving:
            await in_the_middle(agents, "host-a", created.machine)
            attempt = (await agents.get_machine("host-a", created.machine)).attempt
            said = await viaduct(site, "tune", attempt, "--downtime-limit", "4s", "--max-bandwidth", "1GiB/s")
            assert said.exit_code == 0, said.err
            moved = await finished(driving)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        limits = {"downtime_limit_ms": 4000, "max_bandwidth_bytes_per_s": 1 << 30, "tuned": True}
        assert moved.document["limits"] == limits
        await works(site, "host-b", created.machine)


async def test_an_attempt_that_runs_out_of_time_is_forced_where_it_was_asked_to(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("late")) as created:
        limits = (*ENDLESS, "--timeout", "1s", "--on-timeout", "force")
        moved = await viaduct(site, "migrate", "late", "--to", "host-b", *limits, "--json")
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        assert moved.document["pages_mismatched"] == 0
        await works(site, "host-b", created.machine)
