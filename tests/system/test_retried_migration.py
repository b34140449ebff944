"""A migration that is tried again when its destination's agent has gone away in the middle."""

from orchestrator.agents import Agents
from tests.system.attempts import in_the_middle, machine, specification, works
from tests.system.command import finished, running
from tests.system.site import Site

SLOW = ("--downtime-limit", "4s", "--max-bandwidth", "24MiB/s", "--compression", "none", "--measure", "0s")


async def test_what_failed_in_the_middle_is_tried_again_and_moves(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("tried")) as created:
        words = ("migrate", "tried", "--to", "host-b", *SLOW, "--retries", "6", "--json")
        async with running(site, *words) as driving:
            await in_the_middle(agents, "host-a", created.machine)
            site.dest("host-b").kill()
            site.dest("host-b").start()
            moved = await finished(driving)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        earlier = moved.document["earlier"]
        assert isinstance(earlier, list)
        assert earlier
        assert moved.document["pages_mismatched"] == 0
        await works(site, "host-b", created.machine)
        states = site.states("host-a", created.machine)
        assert (states.count("ABORTED"), states[-1]) == (states.count("OUTGOING") - 1, "RETIRED")
