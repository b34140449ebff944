"""Preflight over connections that have just ended."""

from orchestrator.agents import Agents
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import preflight
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import Unreachable


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
