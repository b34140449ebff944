"""Hosts that are not who they should be, and hosts whose clock is off, as the doctor and whoever looks find them."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.agents import Agents
from orchestrator.diagnosis.diagnosis import Diagnosis, diagnosis
from orchestrator.diagnosis.finding import Code
from orchestrator.diagnosis.look import look
from orchestrator.inventory import resolve, survey
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.recovery.journalled_hosts import MACHINE, Held, JournalledSite, owner
from vm_migration.errors import Unreachable

NOW = 1_800_000_000.0
DAY = 86_400.0


async def found(site: JournalledSite) -> Diagnosis:
    async with Agents(site.addresses, None) as agents:
        return diagnosis(await look(agents, clock=lambda: NOW))


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (DAY, "The clock of host-a is 1 day, 0:00:00 ahead of this one"),
        (-DAY - 5, "The clock of host-a is 1 day, 0:00:05 behind this one"),
        (60.0, "The clock of host-a is 0:01:00 ahead of this one"),
    ],
)
async def test_a_clock_that_is_off_is_a_notice(site: JournalledSite, ahead: float, text: str) -> None:
    site["host-a"].clock_s = NOW + ahead
    site["host-b"].clock_s = NOW - 59
    told = [one for one in (await found(site)).findings if one.code == Code.CLOCK_OFF]
    assert [(one.host, one.severity) for one in told] == [("host-a", "notice")]
    assert told[0].message.startswith(text)


async def test_a_host_that_does_not_tell_its_clock_has_none_that_is_off(site: JournalledSite) -> None:
    assert not [one for one in (await found(site)).findings if one.code == Code.CLOCK_OFF]


async def test_what_a_host_tells_that_is_another_is_not_used(site: JournalledSite) -> None:
    site["host-b"].machines[MACHINE] = Held(owner())
    site.addresses["host-a"] = site.addresses["host-b"]
    diagnosed = await found(site)
    told = [one for one in diagnosed.findings if one.severity == "problem"]
    assert [(one.code, one.host) for one in told] == [(Code.OTHER_HOST, "host-a")] * 2  # each of its agents
    assert "says that it is of host-b" in told[0].message
    assert diagnosed.site.hosts["host-a"].copies == {}
    assert [machine.owner.host for machine, _ in diagnosed.machines if machine.owner] == ["host-b"]


@pytest.fixture
async def two() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b") as running:
        yield running


async def test_machines_that_a_host_tells_of_as_another_are_nobody_s(two: FakeSite) -> None:
    two.world.add("guest", "host-b")
    two.addresses["host-a"] = replace(two.addresses["host-a"], source=two.addresses["host-b"].source)
    async with Agents(two.addresses, None) as agents:
        surveyed = await survey(agents)
        assert [one.host for one in surveyed.machines] == ["host-b"]
        assert surveyed.silent["host-a"].code == "other-host"
        assert resolve("guest", surveyed).host == "host-b"
        with pytest.raises(Unreachable) as refusal:
            resolve("another", surveyed)
    assert "tells of machines on host-b" in refusal.value.message
