"""Direct streams are of 0.2.0: towards and from hosts before it, they are refused and nothing is done."""

from orchestrator.agents import Agents
from tests.system.attempts import machine, specification, works
from tests.versions.mixed_site import MixedSite, require_moved, viaduct
from tests.versions.programs import NEWER, Version


async def test_direct_streams_are_refused_where_one_host_has_none(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("direct-only"), at="host-b") as created:
        words = ("migrate", "direct-only", "--transport", "direct", "--json", "--to")
        refused = await viaduct(mixed_site, NEWER, *words, "host-a")
        assert (refused.exit_code, refused.document["outcome"]) == (3, "refused")
        assert "transport-not-offered" in refused.out
        assert mixed_site.machines_at("host-a") == []
        assert mixed_site.states("host-b", created.machine) == ["OWNER"]
        jobs = await require_moved(mixed_site, NEWER, "direct-only", "host-a")
        refused = await viaduct(mixed_site, NEWER, *words, "host-b")
        assert refused.exit_code in {2, 3}
        assert "transport" in refused.out + refused.err
        assert mixed_site.machines_at("host-b") == []
        await works(mixed_site, "host-a", created.machine, jobs)
