"""Several commands at once: over one store, and over stores that know nothing of each other."""

import asyncio
from pathlib import Path

from orchestrator.agents import Agents
from tests.system.attempts import ENDLESS, in_the_middle, machine, specification, works
from tests.system.command import finished, running, viaduct
from tests.system.orchestrated import prepared
from tests.system.site import Site

PATIENT = ("--downtime-limit", "8s", "--measure", "0s")
SLOWLY = ("--max-bandwidth", "16MiB/s", "--compression", "none")


async def test_a_command_with_an_empty_store_finds_and_cancels_what_another_drives(
    site: Site, agents: Agents, tmp_path: Path
) -> None:
    elsewhere = prepared(site, tmp_path, "elsewhere").alone
    site.stop("host-c")
    async with machine(site, agents, specification("unheard-of")) as created:
        async with running(site, "migrate", "unheard-of", "--to", "host-b", *ENDLESS, "--json") as driving:
            await in_the_middle(agents, "host-a", created.machine)
            listed = await viaduct(site, "list", "--json", config=elsewhere)
            attempts, silent = listed.document["attempts"], listed.document["silent"]
            assert isinstance(attempts, list)
            assert isinstance(silent, list)
            (found,) = [one for one in attempts if one["machine"] == created.machine]
            assert (found["source"], found["destination"], found["phase"]) == ("host-a", "host-b", "pre-copy")
            assert "host-c" in [one["host"] for one in silent]
            cancelled = await viaduct(site, "cancel", found["attempt"][:8], "--json", config=elsewhere)
            assert cancelled.exit_code == 0, cancelled.err
            ended = await finished(driving)
        assert (ended.exit_code, ended.document["outcome"]) == (5, "cancelled"), ended.err
        assert ended.document["attempt"] == found["attempt"]
        await works(site, "host-a", created.machine)


async def test_of_two_that_ask_for_one_machine_at_once_one_moves_it(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("wanted")) as created:
        words = ("migrate", "wanted", "--to", "host-b", *PATIENT, *SLOWLY, "--json")  # it goes on while the other asks
        async with running(site, *words) as one, running(site, *words) as other:
            ended = await asyncio.gather(finished(one), finished(other))
        won, lost = sorted(ended, key=lambda each: each.exit_code)
        assert (won.exit_code, won.document["outcome"]) == (0, "completed"), won.err
        assert (lost.exit_code, lost.document["outcome"]) == (3, "refused"), lost.err
        assert "is open, held by cli-" in lost.err
        await works(site, "host-b", created.machine)
