"""`viaduct update` of machines that real agents hold: other processes, the same memory, devices that never stopped."""

import asyncio
import json
from pathlib import Path

import jsonschema

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, machine, migrated, require_whole, specification, works
from tests.system.command import Ended, running, viaduct
from tests.system.orchestrated import orchestrated
from tests.system.processes import ended, naming
from tests.system.site import Site
from vm_migration.handover.states import State
from vm_migration.handover.succession import went_over
from vm_migration.machine.run_directory import lives

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def document(said: Ended) -> dict[str, object]:
    found = said.document
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / f"{found['schema']}.json").read_text())).validate(found)
    return found


def updated(said: Ended) -> dict[str, object]:
    assert said.exit_code == 0, said.err
    found = document(said)["update"]
    assert isinstance(found, dict)
    assert found["outcome"] == "completed", found
    return found


async def test_a_machine_goes_on_in_a_new_process_and_moves_afterwards(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("updated")) as created:
        before = site.instance("host-a", created.machine)
        jobs = await works(site, "host-a", created.machine)
        asked = await viaduct(site, "update", "updated", "--dry-run")
        assert (asked.exit_code, site.instance("host-a", created.machine)) == (0, before), asked.err
        found = updated(await viaduct(site, "update", "updated", "--json"))
        assert isinstance(found["downtime_ms"], float)
        now = site.instance("host-a", created.machine)
        assert now.vmm != before.vmm
        assert now.host == before.host
        assert ended(before.vmm.pid, 10.0)
        record = site.record("host-a", created.machine)
        assert record is not None
        assert went_over(record)
        assert await works(site, "host-a", created.machine) > jobs
        in_place = updated(await viaduct(site, "update", "updated", "--mode", "exec", "--json"))
        assert (in_place["mode"], site.instance("host-a", created.machine)) == ("exec", now)
        assert await works(site, "host-a", created.machine) > jobs
        refused = await viaduct(site, "update", "updated", "--mode", "reboot")
        assert (refused.exit_code, "is not suspended" in refused.err) == (3, True), refused.err
        again = await viaduct(site, "update", "updated")
        assert again.exit_code == 0, again.err
        assert "downtime" in again.out
        assert len(processes(site, created.machine)) == 2  # one of each kind
        assert not lives(now.vmm)
        require_whole(await migrated(agents, created.machine, "host-a", "host-b"))


async def test_a_suspended_machine_goes_on_in_new_processes_of_both_kinds(
    site: Site, agents: Agents, tmp_path: Path
) -> None:
    path = tmp_path / "ram"
    wanted = specification("sleeper", memory_backing="file", memory_path=str(path), enable_migration="off")
    async with machine(site, agents, wanted) as created:
        before = site.instance("host-a", created.machine)
        jobs = await works(site, "host-a", created.machine)
        asked = await viaduct(site, "update", "sleeper", "--mode", "reboot", "--dry-run")
        assert (asked.exit_code, "viaduct machine suspend" in asked.out) == (3, True), asked.out
        assert (await viaduct(site, "machine", "suspend", "sleeper")).exit_code == 0
        found = updated(await viaduct(site, "update", "sleeper", "--mode", "reboot", "--json"))
        assert (found["mode"], isinstance(found["downtime_ms"], float)) == ("reboot", True)
        now = site.instance("host-a", created.machine)
        assert not {before.vmm, before.host} & {now.vmm, now.host}
        assert await works(site, "host-a", created.machine) > jobs
        assert names_in(tmp_path) == ["ram"]
        path.unlink()


async def test_a_host_is_updated_through_the_daemon_and_says_what_it_did(site: Site, agents: Agents) -> None:
    names = ("one", "two")
    async with machine(site, agents, specification("one")) as one, machine(site, agents, specification("two")) as two:
        before = [site.instance("host-a", each.machine) for each in (one, two)]
        with orchestrated(site) as made:
            command = ("update", "--host", "host-a", "--all", "--parallel", "2", "--json")
            said = await viaduct(site, *command, config=made.operator)
            assert said.exit_code == 0, said.err
            found = document(said)
            assert (found["outcome"], found["left"]) == ("completed", [])
            listed = await viaduct(site, "list", "--all", config=made.operator)
            assert listed.out.count("on host-a") == 2, listed.out
        for each, earlier, name in zip((one, two), before, names, strict=True):
            assert site.instance("host-a", each.machine).vmm != earlier.vmm, name
            await works(site, "host-a", each.machine)


async def test_a_machine_whose_source_agent_is_killed_meanwhile_runs_in_one_process(site: Site, agents: Agents) -> None:
    """As soon as the update is open, and as soon as the guest stands still for it, or a little later."""
    async with machine(site, agents, specification("struck")) as created:
        for begun in ({State.OUTGOING}, {State.STOPPED, State.RELEASED, State.RECLAIMED}):
            await works(site, "host-a", created.machine)
            async with running(site, "update", "struck", "--json") as command:
                await reaches(site, created.machine, begun)
                site.source("host-a").kill()
                site.run("host-a")
                await command.communicate()
            jobs = await works(site, "host-a", created.machine)
            assert await works(site, "host-a", created.machine, jobs) > jobs
            record = site.record("host-a", created.machine)
            assert record is not None
            assert record.owns
            assert record.instance == site.instance("host-a", created.machine).name
            assert len(processes(site, created.machine)) == 2


async def reaches(site: Site, machine: str, states: set[State]) -> None:
    """Wait until the machine's journal says so; it is another process's, and tells nobody."""
    async with asyncio.timeout(DEADLINE):
        while not ((record := site.record("host-a", machine)) and record.state in states and record.policy):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)


def processes(site: Site, machine: str) -> list[int]:
    """Return the living processes that work for a machine on host-a; those that are ending end first."""
    found = naming(site.folder / "host-a" / "run" / "machines", set())
    instance = site.instance("host-a", machine)
    mine = [pid for pid, words in found.items() if machine in words]
    return [pid for pid in mine if pid in (instance.vmm.pid, instance.host.pid) or not ended(pid, 10.0)]


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]
