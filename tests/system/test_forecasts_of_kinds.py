"""What moving a model shows is no forecast of a QEMU, which sends itself, nor the other way round."""

from collections.abc import Iterator

import pytest

from orchestrator.agents import Agents
from tests.system import attempts
from tests.system.attempts import machine, migrated, policy
from tests.system.qemu_machines import PROGRAM, offer, two_hosts
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2
from vmm.assembly.specification import check_specification

BARE = check_specification(
    {"name": "bare", "kind": "qemu", "memory": {"size": "64MiB"}, "qemu": {"arguments": ["-accel", "tcg"]}}, "bare"
)


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with two_hosts(lambda _folder: offer(PROGRAM)) as site:
        yield site


async def assumed(agents: Agents, uuid: str) -> bool:
    """Tell whether a forecast of moving a machine to host-b rests on no attempt: what a standstill takes is assumed."""
    question = source_pb2.CheckOutgoingRequest(machine=uuid, destination="host-b", policy=policy())
    asked = await agents.check_outgoing("host-a", question)
    return any(each.code == "rate-assumed" and "of standstill" in each.message for each in asked.warnings)


async def test_a_forecast_rests_on_attempts_of_machines_of_its_kind(site: Site, agents: Agents) -> None:
    modelled = attempts.specification("modelled", guest_cpu_dirty_rate="2MiB/s", dma_rate="512KiB/s")
    async with machine(site, agents, modelled) as model, machine(site, agents, BARE) as real:
        assert (await migrated(agents, model.machine, "host-a", "host-b")).outcome == "completed"
        assert await assumed(agents, real.machine)
        assert (await migrated(agents, model.machine, "host-b", "host-a")).outcome == "completed"
        assert not await assumed(agents, model.machine)
        assert (await migrated(agents, real.machine, "host-a", "host-b")).outcome == "completed"
        assert (await migrated(agents, real.machine, "host-b", "host-a")).outcome == "completed"
        assert not await assumed(agents, real.machine)
