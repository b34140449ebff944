"""Where an order goes that says `any`: few hosts are asked about the machine, the best first."""

from collections.abc import AsyncIterator, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agents import Agents
from orchestrator.choice import Known, choose
from orchestrator.destination import AT_ONCE, Beside, find_destination, in_turn
from orchestrator.host_standing import HostStanding
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import Preflight, require_choosable
from tests.orchestrator.fake_agents import FakeSite, fake_site
from tests.orchestrator.test_choice import KNOWN, NEEDS, fleets
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import InvalidInput, Refused

GIB = 1 << 30
HOSTS = tuple(f"host-{letter}" for letter in "abcdefg")


class Refusing(Agents):
    """Agents of which some destinations refuse a machine when they are asked about it."""

    refusing: Collection[str] = ()

    async def check_incoming(
        self, host: str, request: destination_pb2.CheckIncomingRequest
    ) -> destination_pb2.CheckIncomingResponse:
        answer = await super().check_incoming(host, request)
        if host in self.refusing:
            answer.blockers.append(types_pb2.Blocker(code="machine-exists", message=f"{host} has one of that name"))
        return answer


@pytest.fixture
async def many() -> AsyncIterator[FakeSite]:
    async with fake_site(*HOSTS) as running:
        for number, host in enumerate(HOSTS):  # the later the name, the more room
            running.world.script.facts[host] = types_pb2.HostFacts(
                version=VERSION,
                offer=HostOffer().message(),
                load=types_pb2.HostLoad(memory_free_bytes=(2 + number) * GIB),
            )
        yield running


async def found(site: FakeSite, beside: Beside | None = None, *, refusing: Collection[str] = ()) -> Preflight:
    machine = site.world.add("guest", "host-a")
    async with Refusing(site.addresses, None) as agents:
        agents.refusing = refusing
        status = site.world.machines[machine]
        return await find_destination(agents, status, MigrationPolicy(), Beside() if beside is None else beside)


def chosen(one: Preflight) -> str | None:
    return None if one.chosen is None else one.chosen.host


async def test_only_the_best_hosts_are_asked_about_the_machine(many: FakeSite) -> None:
    best = await found(many)
    assert [one.host for one in best.candidates] == ["host-g"]
    assert len(many.world.measured_ms) == AT_ONCE


async def test_the_next_best_are_asked_where_those_refuse_it(many: FakeSite) -> None:
    best = await found(many, refusing=HOSTS[3:])
    assert [one.host for one in best.candidates] == ["host-c", "host-g", "host-f", "host-e", "host-d"]
    assert [one.passes for one in best.candidates] == [True, False, False, False, False]
    assert len(many.world.measured_ms) == 6


async def test_where_all_refuse_it_each_says_why(many: FakeSite) -> None:
    many.world.script.facts["host-b"].load.memory_free_bytes = 0
    none = await found(many, refusing=HOSTS)
    assert chosen(none) is None
    assert {one.host: one.blockers[0].code for one in none.candidates} == {
        **dict.fromkeys(HOSTS[2:], "machine-exists"),
        "host-b": "no-memory",
    }
    assert len(many.world.measured_ms) == 5  # the one that has no room was not asked
    require_choosable(none)


async def test_a_host_where_it_failed_comes_after_all_others_however_much_room_it_has(many: FakeSite) -> None:
    assert chosen(await found(many, Beside(failed_at=("host-g", "host-f")))) == "host-e"
    only = Beside(failed_at=("host-g", "host-f"))
    assert chosen(await found(many, only, refusing=HOSTS[1:5])) == "host-g"


async def test_a_host_that_is_excluded_is_neither_chosen_nor_asked(many: FakeSite) -> None:
    reasons = dict.fromkeys(HOSTS[2:], "In maintenance")
    assert chosen(await found(many, Beside(excluded=reasons))) == "host-b"
    assert len(many.world.measured_ms) == 1
    none = await found(many, Beside(excluded=dict.fromkeys(HOSTS, "In maintenance")))
    with pytest.raises(Refused, match="In maintenance"):
        require_choosable(none)


async def test_of_one_host_there_is_nothing_to_choose() -> None:
    async with fake_site("host-a") as alone:
        with pytest.raises(InvalidInput, match="No other host"):
            await found(alone)


@given(fleets(), KNOWN, st.lists(st.sampled_from(HOSTS), unique=True))
def test_hosts_are_asked_in_the_order_of_the_choice_and_each_once(
    fleet: list[HostStanding], known: Known, failed_at: list[str]
) -> None:
    considered = choose(NEEDS, fleet, known).considered
    asked = [one.host for one in in_turn(considered, failed_at)]
    assert sorted(asked) == sorted(one.host for one in considered if one.passes)
    fresh = [host for host in asked if host not in failed_at]
    assert fresh == [one.host for one in considered if one.passes and one.host not in failed_at]
    assert asked == [*fresh, *(host for host in failed_at if host in asked)]
