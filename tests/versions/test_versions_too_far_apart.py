"""Versions that are further apart than one minor are refused before anything happens."""

from pathlib import Path

import msgspec

from orchestrator.agents import Agents
from orchestrator.attempt import Notice
from tests.system.attempts import machine, specification, works
from tests.versions.mixed_site import MixedSite, viaduct
from tests.versions.programs import NEWER, Version, pretending
from vm_migration.daemon.host_facts import VERSION, speaks

MAJOR, MINOR = (int(part) for part in VERSION.split(".")[:2])


class Blocked(msgspec.Struct):
    """A destination as preflight's document has it."""

    blockers: tuple[Notice, ...]


def test_this_minor_version_speaks_with_its_neighbours_only() -> None:
    spoken = {f"{major}.{minor}.7" for major in range(MAJOR + 2) for minor in range(MINOR + 4)}
    spoken = {number for number in spoken if speaks(number)}
    assert spoken == {f"{MAJOR}.{minor}.7" for minor in (MINOR - 1, MINOR, MINOR + 1)}
    assert not any(speaks(number) for number in ("", "2", "0.x.1", "dev"))


async def test_two_versions_apart_is_refused_whichever_gives(
    mixed_site: MixedSite, agents: Agents, older: Version, tmp_path: Path
) -> None:
    newest = pretending(f"{MAJOR}.{MINOR + 1}.0", tmp_path)
    mixed_site.host_becomes(older, "host-a")
    mixed_site.host_becomes(newest, "host-b")
    for host, version in (("host-a", older), ("host-b", newest)):
        assert (await agents.describe_host(host, "source")).version == version.number
    async with machine(mixed_site, agents, specification("estranged")) as created:
        done = await works(mixed_site, "host-a", created.machine)
        refused = await viaduct(mixed_site, NEWER, "migrate", "estranged", "--to", "host-b", "--json")
        assert (refused.exit_code, refused.document["outcome"]) == (3, "refused"), refused.err
        assert await blockers(mixed_site, "estranged", "host-b") == ["version"]
        assert mixed_site.record("host-b", created.machine) is None
        await works(mixed_site, "host-a", created.machine, done)
    async with machine(mixed_site, agents, specification("distant"), "host-b"):
        assert await blockers(mixed_site, "distant", "host-a") == ["version"]


async def blockers(site: MixedSite, machine: str, to: str) -> list[str]:
    """Return what preflight says against a migration, by its codes."""
    asked = await viaduct(site, NEWER, "preflight", machine, "--to", to, "--json")
    assert asked.exit_code == 3, asked.err
    (candidate,) = msgspec.convert(asked.document["candidates"], list[Blocked])
    return [blocker.code for blocker in candidate.blockers]
