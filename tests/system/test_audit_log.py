"""A whole migration in the audit logs of its hosts: who did what, to which machine, at which epoch."""

import json

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import begin, machine, migrated, policy, require_whole, specification
from tests.system.site import Site
from vm_migration.daemon.audit_file import AUDIT_LOG
from vm_migration.errors import Unauthorised


def lines(site: Site, host: str, machine: str) -> list[dict[str, object]]:
    """Return what a host's audit log says of a machine."""
    text = (site.folder / host / "state" / AUDIT_LOG).read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["machine"] == machine]


async def test_every_call_that_changed_something_is_a_line_and_no_other(site: Site, agents: Agents) -> None:
    operator, source = "viaduct://test/operator/operator", "viaduct://test/host/host-a"
    async with machine(site, agents, specification("audited")) as created, site.agents("viewer") as viewer:
        with pytest.raises(Unauthorised):
            await begin(viewer, created.machine, "host-a", "host-b")
        require_whole(await migrated(agents, created.machine, "host-a", "host-b", policy()))
        here, there = lines(site, "host-a", created.machine), lines(site, "host-b", created.machine)
    assert [(line["who"], line["call"], line["outcome"], line["code"]) for line in here] == [
        (operator, "Machines/CreateMachine", "done", ""),
        ("viaduct://test/viewer/viewer", "Source/Begin", "refused", "role"),
        (operator, "Source/Begin", "done", ""),
        (operator, "Source/Start", "done", ""),
    ]
    assert {line["process"] for line in here} == {"viaduct-source-agent"}
    told = {(line["who"], line["call"], line["outcome"]) for line in there}
    assert told == {
        (operator, "Destination/Prepare", "done"),
        (source, "Destination/OpenRound", "done"),
        (source, "Destination/Finish", "done"),
        (source, "Destination/Handoff", "done"),
        (source, "Destination/NoteRetired", "done"),
    }
    assert [line["call"] for line in there].count("Destination/Handoff") == 1
    begun = here[2]
    assert begun["detail"] == "host-b"
    assert {(line["attempt"], line["epoch"]) for line in there} == {(begun["attempt"], begun["epoch"])}
