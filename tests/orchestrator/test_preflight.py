"""Preflight: of several hosts, of hosts that are not who they should be, and over connections that have just ended."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.agents import Agents
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import ANY, Preflight, preflight, require_choosable
from tests.orchestrator.fake_agents import FakeSite, fake_site
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import Refused, Unreachable

GIB = 1 << 30


class Broken(Agents):
    """Agents whose connections have all ended: each is made anew when it is used again."""

    asked = 0
    code = "unreachable"

    async def check_outgoing(
        self, host: str, request: source_pb2.CheckOutgoingRequest
    ) -> source_pb2.CheckOutgoingResponse:
        self._break(1)
        return await super().check_outgoing(host, request)

    async def check_incoming(
        self, host: str, request: destination_pb2.CheckIncomingRequest
    ) -> destination_pb2.CheckIncomingResponse:
        self._break(3)
        return await super().check_incoming(host, request)

    def _break(self, at: int) -> None:
        self.asked += 1
        if self.asked == at:
            raise Unreachable(self.code, "The connection has ended")


async def test_a_connection_that_had_ended_is_no_blocker(site: FakeSite) -> None:
    machine = site.world.add("guest", "host-a")
    status = types_pb2.MachineStatus(machine=machine, name="guest", host="host-a")
    async with Broken(site.addresses, None) as agents:
        found = await preflight(agents, status, "host-b", MigrationPolicy())
        assert (found.candidates[0].blockers, agents.asked) == ((), 4)


async def test_an_agent_that_kept_silent_for_the_whole_deadline_is_not_asked_again(site: FakeSite) -> None:
    machine = site.world.add("guest", "host-a")
    status = types_pb2.MachineStatus(machine=machine, name="guest", host="host-a")
    async with Broken(site.addresses, None) as agents:
        agents.code = "deadline"
        found = await preflight(agents, status, "host-b", MigrationPolicy())
        assert ([one.code for one in found.candidates[0].blockers], agents.asked) == (["unreachable"], 1)


@pytest.fixture
async def four() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b", "host-c", "host-d") as running:
        yield running


def tells(site: FakeSite, host: str, *, free_gib: int, attempts: int = 0, offer: HostOffer | None = None) -> None:
    site.world.script.facts[host] = types_pb2.HostFacts(
        version=VERSION,
        memory_budget_bytes=64 * GIB,
        offer=(HostOffer() if offer is None else offer).message(),
        load=types_pb2.HostLoad(memory_free_bytes=free_gib * GIB, attempts=attempts),
    )


async def asked(site: FakeSite, destination: str = ANY, *, excluded: dict[str, str] | None = None) -> Preflight:
    machine = site.world.add("guest", "host-a")
    async with Agents(site.addresses, None) as agents:
        status = site.world.machines[machine]
        return await preflight(agents, status, destination, MigrationPolicy(), excluded=excluded)


async def test_any_takes_the_host_with_most_room_and_tells_of_all(four: FakeSite) -> None:
    tells(four, "host-b", free_gib=60, attempts=2)  # both agents say it: two go and two come
    tells(four, "host-c", free_gib=20)
    found = await asked(four)  # host-d is of 0.1.0
    assert [one.host for one in found.candidates] == ["host-c", "host-b", "host-d"]
    considered = [one.considered for one in found.candidates if one.considered is not None]
    assert [one.verdict for one in considered] == ["chosen", "passes", "passes"]
    assert considered[1].figures.link_share == 1 / 5
    assert considered[2].unknown
    assert found.chosen is not None
    assert found.chosen.host == "host-c"


async def test_a_host_that_does_not_answer_is_named_and_one_that_is_excluded_is_not_asked(four: FakeSite) -> None:
    await four.stop("host-b")
    found = await asked(four, excluded={"host-c": "host-c is in maintenance"})
    assert [(one.host, [notice.code for notice in one.blockers]) for one in found.candidates] == [
        ("host-d", []),
        ("host-b", ["unreachable"]),
        ("host-c", ["host-excluded"]),
    ]
    assert len(four.world.measured_ms) == 2
    assert found.candidates[2].blockers[0].message == "host-c is in maintenance"


async def test_a_host_that_is_named_is_asked_though_any_would_leave_it_out(four: FakeSite) -> None:
    found = await asked(four, "host-c", excluded={"host-c": "host-c is in maintenance"})
    assert [(one.host, one.passes) for one in found.candidates] == [("host-c", True)]


async def test_where_every_host_is_excluded_the_refusal_names_each_reason(four: FakeSite) -> None:
    excluded = {host: f"{host} is in maintenance" for host in ("host-b", "host-c", "host-d")}
    found = await asked(four, excluded=excluded)
    with pytest.raises(Refused) as refusal:
        require_choosable(found)
    assert refusal.value.code == "no-host-to-choose"
    assert all(reason in refusal.value.message for reason in excluded.values())
    del excluded["host-d"]
    require_choosable(await asked(four, excluded=excluded))


@pytest.mark.parametrize("destination", [ANY, "host-b"])
async def test_an_address_at_which_another_host_answers_is_refused(site: FakeSite, destination: str) -> None:
    site.world.script.facts["host-b"] = types_pb2.HostFacts(host="host-a")
    found = await asked(site, destination)
    assert found.chosen is None
    assert "other-host" in [one.code for one in found.candidates[0].blockers]


async def test_a_machine_whose_own_host_answers_as_another_cannot_move(site: FakeSite) -> None:
    site.world.script.facts["host-a"] = types_pb2.HostFacts(host="host-x")
    found = await asked(site, "host-b")
    (blocker,) = found.candidates[0].blockers
    assert blocker.message == "The source agent that is configured for host-a says that it is of host-x"
