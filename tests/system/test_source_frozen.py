"""Processes that are frozen in the middle of a migration: noticed, given up, and no harm when they thaw."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from orchestrator.agents import Agents
from tests.system.attempts import DEADLINE, endless, jobs_done, machine, started, works
from tests.system.attempts import specification as small
from tests.system.processes import ended
from tests.system.site import Site


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_frozen_destination_agent_is_given_up_within_five_seconds(site: Site, agents: Agents) -> None:
    async with machine(site, agents, small("stalled")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        arriving = site.instance("host-b", created.machine)
        with frozen(site.dest("host-b").pid):
            stopped = time.monotonic()
            report = await attempt.end()
            assert time.monotonic() - stopped < 9.0  # five, and what an abort and a report take beside other tests
            assert (report.outcome, report.state, report.error.code) == ("failed", "ABORTED", "stream-stalled")
            await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
        assert ended(arriving.vmm.pid, DEADLINE)  # it thaws, and hears of the end
        assert site.states("host-b", created.machine)[-1] == "DISCARDED"


async def test_a_frozen_machine_does_not_hold_up_a_cancel(site: Site, agents: Agents) -> None:
    async with machine(site, agents, small("held")) as created:
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        await attempt.in_the_middle()
        with frozen(site.instance("host-a", created.machine).vmm.pid):
            asked = time.monotonic()
            report = await agents.cancel("host-a", attempt.key)
            assert time.monotonic() - asked < 3.0  # three tenths are waited for an answer
            assert report.state == "ABORTED"
            record = site.record("host-a", created.machine)
            assert record is not None
            assert record.state == "ABORTED"
        assert (await attempt.end()).outcome == "cancelled"
        await works(site, "host-a", created.machine, await jobs_done(site, "host-a", created.machine))
