"""A cancel before the point of no return, given by a person at each phase: the machine runs where it was, as it was.

What is compared is the order of events in journals and answers, never the time that they took.
"""

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, ENDLESS, in_the_middle, jobs_done, machine, specification, works
from tests.system.command import Ended, finished, running, viaduct
from tests.system.gates import Gate
from tests.system.site import Site
from vm_migration.api.v1 import types_pb2

PATIENT = ("--downtime-limit", "5s", "--measure", "0s")
SLOWLY = (*PATIENT, "--max-bandwidth", "1MiB/s", "--compression", "none")
"""No round closes before somebody cancels."""

POINTS = ("before_prepare", "before_handoff", "before_ready")


@pytest.fixture(scope="module")
def shared_site(gate: Gate) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        site = Site(Path(name), {"host-a": "2GiB", "host-b": "2GiB"}, hooks=gate.hooks(*POINTS))
        with contextlib.closing(site):
            yield site


async def open_attempt(agents: Agents, machine: str) -> str:
    """Wait until a machine's attempt has begun at host-a, and return it."""
    async with asyncio.timeout(DEADLINE):
        while not (attempt := (await agents.get_machine("host-a", machine)).attempt):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
    return attempt


async def require_as_it_was(site: Site, uuid: str, jobs: int, ended: Ended) -> None:
    """Check that a command told of a cancel, and that its machine goes on at its source, without an error."""
    assert (ended.exit_code, ended.document["outcome"]) == (5, "cancelled"), ended.err
    assert site.states("host-a", uuid)[-1] == "ABORTED"
    await works(site, "host-a", uuid, jobs)
    assert site.machines_at("host-b") == []
    assert site.states("host-b", uuid) in ([], ["PREPARED", "DISCARDED"])


async def test_a_cancel_while_writes_are_measured_leaves_the_machine_to_whoever_asks_next(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("measured")) as created:
        jobs = await works(site, "host-a", created.machine)
        words = ("migrate", "measured", "--to", "host-b", "--measure", "10s", "--json")
        async with running(site, *words) as driving:
            async with asyncio.timeout(DEADLINE):
                while "preflight" not in (await viaduct(site, "list")).out:
                    pass
            driving.send_signal(signal.SIGINT)
            ended = await finished(driving)
        assert (ended.exit_code, ended.document["outcome"], ended.document["epoch"]) == (5, "cancelled", 0), ended.err
        found = await agents.measure_dirty_rate("host-a", created.machine, 100)
        assert found.pages > 0
        await works(site, "host-a", created.machine, jobs)
        assert site.states("host-a", created.machine) == ["OWNER"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_cancel_while_a_hook_runs_ends_the_hook_and_the_attempt(
    site: Site, agents: Agents, gate: Gate, point: str
) -> None:
    async with machine(site, agents, specification("held")) as created:
        jobs = await works(site, "host-a", created.machine)
        with gate.armed(point):
            async with running(site, "migrate", "held", "--to", "host-b", *PATIENT, "--json") as driving:
                await gate.reached()
                attempt = await open_attempt(agents, created.machine)
                if point == "before_ready":
                    assert "STOPPED" in site.states("host-a", created.machine)
                assert gate.waiting()
                said = await viaduct(site, "cancel", attempt, "--json")
                assert said.exit_code == 0, said.err
                await require_as_it_was(site, created.machine, jobs, await finished(driving))
                await gate.left()


async def test_a_cancel_while_the_destination_makes_memory_ready_leaves_nothing_there(
    site: Site, agents: Agents
) -> None:
    wanted = specification("large", memory_size="1GiB")
    async with machine(site, agents, wanted) as created:
        jobs = await works(site, "host-a", created.machine)
        async with running(site, "migrate", "large", "--to", "host-b", *SLOWLY, "--json") as driving:
            async with asyncio.timeout(DEADLINE):
                while site.states("host-b", created.machine) != ["PREPARED"]:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)
            attempt = await open_attempt(agents, created.machine)
            assert (await viaduct(site, "cancel", attempt)).exit_code == 0
            await require_as_it_was(site, created.machine, jobs, await finished(driving))
        key = types_pb2.AttemptKey(machine=created.machine, attempt=attempt)
        assert not (await agents.get_attempt("host-a", key)).rounds


async def test_a_destination_that_was_frozen_while_it_prepared_forgets_the_attempt_when_it_thaws(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("iced")) as created:
        jobs = await works(site, "host-a", created.machine)
        async with running(site, "migrate", "iced", "--to", "host-b", *SLOWLY, "--json") as driving:
            attempt = await open_attempt(agents, created.machine)
            frozen = site.dest("host-b").process
            assert frozen is not None
            frozen.send_signal(signal.SIGSTOP)
            try:
                said = await viaduct(site, "cancel", attempt)
                assert said.exit_code == 0, said.err
                await works(site, "host-a", created.machine, jobs)
                ended = await finished(driving)
            finally:
                frozen.send_signal(signal.SIGCONT)
            assert (ended.exit_code, ended.document["outcome"]) == (5, "cancelled"), ended.err
        assert site.states("host-a", created.machine)[-1] == "ABORTED"


async def test_ctrl_c_in_precopy_cancels_and_the_second_says_so_again(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("typed")) as created:
        jobs = await works(site, "host-a", created.machine)
        async with running(site, "migrate", "typed", "--to", "host-b", *ENDLESS, "--json") as driving:
            await in_the_middle(agents, "host-a", created.machine)
            driving.send_signal(signal.SIGINT)
            assert driving.stderr is not None
            assert (await driving.stderr.readline()).startswith(b"Cancelling")
            with contextlib.suppress(ProcessLookupError):
                driving.send_signal(signal.SIGINT)
            await require_as_it_was(site, created.machine, jobs, await finished(driving))
        assert await jobs_done(site, "host-a", created.machine) > jobs
