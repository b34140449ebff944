"""A host that goes off for good in the middle of a handover, and what a person does then, with real agents.

A hook of the destination freezes the source's agent at the stop, so that the destination becomes READY and nobody
releases the machine: the worst moment to lose a host in.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.diagnosis.examination import examine
from tests.system.attempts import DEADLINE, machine, policy, specification, started, works
from tests.system.command import Ended, viaduct
from tests.system.processes import ended
from tests.system.site import Site
from vm_migration.handover.departure import released
from vm_migration.handover.evidence import InstanceGone, Process, SideView
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

pytestmark = pytest.mark.timeout(300)  # many processes start in each of them

FREEZE = (
    "import os, pathlib, signal, sys; "
    "pid = pathlib.Path(sys.argv[1]); "
    "pid.exists() and os.kill(int(pid.read_text()), signal.SIGSTOP)"
)


@contextlib.asynccontextmanager
async def site_of_two() -> AsyncIterator[tuple[Site, Path]]:
    """Run two hosts; the agent whose pid stands in the file is frozen before anything becomes READY."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        victim = Path(name) / "victim"
        command = shlex.join([sys.executable, "-c", FREEZE, str(victim)])
        hooks = f"[hooks]\nbefore_ready = [{json.dumps(command)}]\n"
        site = Site(Path(name), {"host-a": "256MiB", "host-b": "256MiB"}, hooks=hooks)
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site, victim


async def until_ready(site: Site, agents: Agents, uuid: str, victim: Path) -> None:
    """Have a machine STOPPED at host-a, whose source agent is frozen, and READY at host-b."""
    await asyncio.to_thread(victim.write_text, str(site.source("host-a").pid))
    await started(agents, uuid, "host-a", "host-b", policy())
    journals = Journals(site.journals("host-b"))
    ready = await _until_state(journals, uuid, State.READY)
    assert site.record("host-a", uuid) is not None
    assert ready.peer == "host-a"
    await asyncio.to_thread(victim.unlink)


async def _until_state(journals: Journals, uuid: str, state: State) -> Record:
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(JournalUnreadable):
                record = await asyncio.to_thread(journals.read_last, uuid)
                if record.state is state:
                    return record
            await asyncio.sleep(0.02)  # another process writes it


def turn_off(site: Site, host: str, uuid: str) -> None:
    """End everything that a host runs."""
    instance = site.directory(host, uuid).instance()
    site.source(host).kill()
    site.dest(host).kill()
    if instance is not None:
        for process in (instance.vmm, instance.host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            assert ended(process.pid, DEADLINE)


def release(site: Site, uuid: str) -> None:
    """Write what host-a's agent writes last before the secret leaves, as if it had died right after it."""
    with Journals(site.journals("host-a")).open(uuid) as journal:
        last = journal.last
        ready = SideView(last.attempt or "", State.READY, Process.ALIVE, pause=last.pause)
        journal.append(released(last, destination=ready, process=InstanceGone(last.instance)))


async def doctor(site: Site) -> tuple[int, dict[str, set[str]], list[object]]:
    """Return its exit code, the codes by severity, and the states of the machines."""
    said = await viaduct(site, "doctor", "--json")
    findings, machines = said.document["findings"], said.document["machines"]
    assert isinstance(findings, list)
    assert isinstance(machines, list)
    codes: dict[str, set[str]] = {}
    for one in findings:
        codes.setdefault(one["severity"], set()).add(one["code"])
    return said.exit_code, codes, [one["state"] for one in machines]


async def settled(agents: Agents) -> None:
    """Wait until the doctor finds nothing wrong, and one machine that runs."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DEADLINE
    while (found := await examine(agents)).findings:
        assert loop.time() < until, found.findings
    assert [place.state for _, place in found.machines] == ["running"]


def steps(said: Ended) -> list[tuple[object, object]]:
    found = said.document["steps"]
    assert isinstance(found, list)
    return [(one["action"], one["done"]) for one in found]


async def test_a_machine_whose_source_died_at_its_stop_starts_on_the_mounted_journal() -> None:
    async with site_of_two() as (site, victim), site.agents() as agents:
        async with machine(site, agents, specification("widowed")) as created:
            uuid = created.machine
            await until_ready(site, agents, uuid, victim)
            turn_off(site, "host-a", uuid)
            exit_code, codes, states = await doctor(site)
            assert (exit_code, codes["problem"]) == (8, {"handover-waiting", "host-silent"})
            assert states == ["unresolved"]

            refused = await viaduct(site, "recover", "--fenced", "host-a", "--yes")
            assert (refused.exit_code, "--journal PATH" in refused.err) == (3, True), refused.err
            journals = str(site.journals("host-a"))
            said = await viaduct(site, "recover", "--fenced", "host-a", "--journal", journals, "--yes", "--json")
            assert (said.exit_code, steps(said)) == (0, [("release-and-hand-off", True)]), (said.out, said.err)
            jobs = await works(site, "host-b", uuid)
            assert site.states("host-a", uuid)[-1] == "RELEASED"

            # The host is back: its agent hands over what is long running there, and retires.
            site.run("host-a")
            await settled(agents)
            assert site.states("host-a", uuid)[-1] == "RETIRED"
            assert site.machines_at("host-a") == []
            await works(site, "host-b", uuid, jobs)
        assert site.remains_at_last() == []


async def test_a_released_machine_starts_with_the_secret_of_the_mounted_journal() -> None:
    async with site_of_two() as (site, victim), site.agents() as agents:
        async with machine(site, agents, specification("bequeathed")) as created:
            uuid = created.machine
            await until_ready(site, agents, uuid, victim)
            turn_off(site, "host-a", uuid)
            release(site, uuid)
            before = (site.journals("host-a") / uuid).read_bytes()
            journals = str(site.journals("host-a"))
            said = await viaduct(site, "recover", "--fenced", "host-a", "--journal", journals, "--yes", "--json")
            assert (said.exit_code, steps(said)) == (0, [("hand-off", True)]), (said.out, said.err)
            assert (site.journals("host-a") / uuid).read_bytes() == before
            await works(site, "host-b", uuid)
            again = await viaduct(site, "recover", "--fenced", "host-a", "--journal", journals, "--yes", "--json")
            assert (again.exit_code, steps(again)) == (0, [])
            site.run("host-a")
            await settled(agents)
        assert site.remains_at_last() == []


async def test_a_whole_copy_starts_without_its_source_where_writes_may_be_missing() -> None:
    async with site_of_two() as (site, victim), site.agents() as agents:
        async with machine(site, agents, specification("presumed")) as created:
            uuid = created.machine
            await until_ready(site, agents, uuid, victim)
            turn_off(site, "host-a", uuid)
            said = await viaduct(site, "recover", "--fenced", "host-a", "--may-miss-writes", "--yes", "--json")
            assert (said.exit_code, steps(said)) == (0, [("take-at-destination", True)]), (said.out, said.err)
            jobs = await works(site, "host-b", uuid)
            record = site.record("host-b", uuid)
            assert record is not None
            assert (record.state, record.owned_epoch) == (State.TAKEN, 3)
            assert "host-a off, writes may be missing" in record.reason

            # The host is back and meets the higher epoch: its copy is paused, and given up when it is told to go on.
            site.run("host-a")
            back = await viaduct(site, "recover", "--json")
            assert (back.exit_code, back.document["unresolved"]) == (0, []), (back.out, back.err)
            await settled(agents)
            assert site.states("host-a", uuid)[-1] == "RETIRED"
            await works(site, "host-b", uuid, jobs)
        assert site.remains_at_last() == []


async def test_a_released_machine_is_taken_back_where_writes_may_be_missing() -> None:
    async with site_of_two() as (site, victim), site.agents() as agents:
        async with machine(site, agents, specification("returned")) as created:
            uuid = created.machine
            await until_ready(site, agents, uuid, victim)
            turn_off(site, "host-b", uuid)
            site.source("host-a").kill()
            release(site, uuid)
            site.run("host-a")
            refused = await viaduct(site, "recover", "--fenced", "host-b", "--yes")
            assert (refused.exit_code, "--may-miss-writes" in refused.err) == (3, True), refused.err
            said = await viaduct(site, "recover", "--fenced", "host-b", "--may-miss-writes", "--yes", "--json")
            assert (said.exit_code, steps(said)) == (0, [("take-at-source", True)]), (said.out, said.err)
            jobs = await works(site, "host-a", uuid)

            site.run("host-b")
            await settled(agents)
            assert site.machines_at("host-b") == []
            await works(site, "host-a", uuid, jobs)
        assert site.remains_at_last() == []


async def test_recover_has_everybody_go_on_once_they_are_there() -> None:
    async with site_of_two() as (site, victim), site.agents() as agents:
        async with machine(site, agents, specification("resumed")) as created:
            uuid = created.machine
            await until_ready(site, agents, uuid, victim)
            site.dest("host-b").kill()
            site.source("host-a").kill()
            release(site, uuid)
            site.run("host-a")
            said = await viaduct(site, "recover", "--json")
            assert (said.exit_code, said.document["steps"]) == (6, []), (said.out, said.err)
            site.run("host-b")
            said = await viaduct(site, "recover", "--json")
            assert (said.exit_code, said.document["unresolved"]) == (0, []), (said.out, said.err)
            await works(site, "host-b", uuid)
            await settled(agents)
            assert site.states("host-a", uuid)[-1] == "RETIRED"
        assert site.remains_at_last() == []
