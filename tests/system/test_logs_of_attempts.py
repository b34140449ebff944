"""Whatever a daemon logs while an attempt goes on says of which attempt, machine and epoch."""

import json

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import PATIENT, machine, policy, require_whole, specification, started, works
from tests.system.command import viaduct
from tests.system.daemons import Daemon
from tests.system.orchestrated import orchestrated
from tests.system.site import Site


def lines_after(daemon: Daemon, known: int) -> list[dict[str, object]]:
    """Return what a daemon has logged since its log had so many letters, but of itself.

    Other lines on stderr are no documents. Certificates that another test had renewed are taken up whenever that is.
    """
    lines = (json.loads(line) for line in daemon.log[known:].splitlines() if line.startswith('{"'))
    return [line for line in lines if line.get("module") != "vm_migration.link.renewal"]


@pytest.mark.parametrize("transport", ["grpc", "direct"])
async def test_every_line_of_the_agents_tells_its_attempt(site: Site, agents: Agents, transport: str) -> None:
    async with machine(site, agents, specification("logged")) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        daemons = (site.source("host-a"), site.dest("host-b"))
        known = [len(daemon.log) for daemon in daemons]
        attempt = await started(agents, uuid, "host-a", "host-b", policy(transport=transport))
        report = await attempt.end()
        require_whole(report)
        source, dest = (lines_after(daemon, start) for daemon, start in zip(daemons, known, strict=True))
        subject = {"machine": uuid, "attempt": report.key.attempt, "epoch": report.key.epoch}
        for line in (*source, *dest):
            assert {name: line.get(name) for name in subject} == subject, line
        assert [line["phase"] for line in source if "phase" in line] == [
            "pre-copy", "stopping", "verifying", "releasing", "handing-over", "completed",
        ]  # fmt: skip
        assert [line["event"] for line in dest] == ["prepared", "memory loaded", "handed off"]


async def test_every_line_of_the_orchestrator_tells_its_attempt(site: Site, agents: Agents) -> None:
    with orchestrated(site) as made:
        async with machine(site, agents, specification("driven")) as created:
            known = len(made.daemon.log)
            moved = await viaduct(
                site, "migrate", created.machine, "--to", "host-b", *PATIENT, "--json", config=made.operator
            )
            assert moved.exit_code == 0, moved.err
            lines = lines_after(made.daemon, known)
    subject = {"machine": created.machine, "attempt": moved.document["attempt"], "epoch": created.epoch + 1}
    assert [line["event"] for line in lines] == ["attempt ended"]
    for line in lines:
        assert {name: line.get(name) for name in subject} == subject, line
