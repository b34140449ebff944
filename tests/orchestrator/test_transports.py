"""A transport that is asked for is used or refused: none is chosen in its place."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.admission import Order, admit
from orchestrator.attempt import Asked, Attempt, Outcome, Phase
from orchestrator.drive import Drive
from orchestrator.policy import MOST_STREAMS, MigrationPolicy, Transport, policy_to, require_offered
from orchestrator.surroundings import Surroundings
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.test_viaduct_command import Run, config, viaduct
from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM
from vm_migration.errors import InvalidInput

__all__ = ["config", "viaduct"]  # fixtures
DIRECT = MigrationPolicy(transport="direct", streams=2)


async def test_a_destination_without_direct_streams_blocks_before_anything_is_done(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    ended = await Drive(await admit(around, Order("guest", "host-b", DIRECT)), around).run()
    assert ended.outcome == Outcome.REFUSED
    assert [one.code for one in ended.blockers] == ["transport-not-offered"]
    assert site.world.calls == []


async def test_a_destination_that_prepares_without_direct_streams_ends_the_attempt(
    site: FakeSite, around: Surroundings
) -> None:
    """It was another version when preflight asked; an older one reads nothing of the transport that Prepare names."""
    site.world.add("guest", "host-a")
    site.world.script.features = ["direct"]
    ended = await Drive(await admit(around, Order("guest", "host-b", DIRECT)), around).run()
    assert (ended.phase, ended.outcome) == (Phase.ABORTED, Outcome.FAILED)
    assert ended.error is not None
    assert ended.error.code == "transport-not-offered"
    assert not [call for call in site.world.calls if call.startswith("Start")]


@pytest.mark.parametrize("said", ["", "subject-unlisted", "transport-not-offered"])
async def test_a_destination_that_takes_no_machine_s_own_stream_directly_has_one_reason_its_own_where_it_says_one(
    site: FakeSite, around: Surroundings, said: str
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.features, site.world.script.features_needed = ["direct"], [DIRECT_MACHINE_STREAM]
    if said:
        site.world.script.incoming_blockers = [types_pb2.Blocker(code=said, message="It has told why")]
    ended = await Drive(await admit(around, Order("guest", "host-b", DIRECT)), around).run()
    (blocker,) = ended.blockers
    assert blocker.code == (said or "transport-not-offered")
    assert ("use --transport grpc" in blocker.message, blocker.message == "It has told why") == (not said, bool(said))
    assert site.world.calls == []


async def test_a_destination_with_direct_streams_is_told_that_they_are_wanted(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.features = site.world.script.features_prepared = ["direct"]
    ended = await Drive(await admit(around, Order("guest", "host-b", DIRECT)), around).run()
    assert ended.outcome == Outcome.COMPLETED
    assert [(each.transport, each.streams) for each in site.world.prepared] == [("direct", 2)]


@pytest.mark.parametrize("streams", [0, MOST_STREAMS + 1])
def test_streams_have_bounds(streams: int) -> None:
    require_offered(MigrationPolicy(streams=MOST_STREAMS, transport="direct"))
    with pytest.raises(InvalidInput, match=str(MOST_STREAMS)):
        require_offered(MigrationPolicy(streams=streams))


@pytest.mark.parametrize("configured", [None, "grpc", "direct"])
@pytest.mark.parametrize("asked", ["grpc", "direct"])
def test_a_transport_that_was_asked_for_is_not_the_configuration_s(
    asked: Transport, configured: Transport | None
) -> None:
    policy = MigrationPolicy(transport=asked, streams=3)
    assert policy_to(policy, configured, by_host=False) == policy
    assert policy_to(policy, configured, by_host=True) == MigrationPolicy(transport=configured or "grpc", streams=3)


async def ordered(around: Surroundings, site: FakeSite, order: Order) -> tuple[Attempt, list[str]]:
    """Return how an order ended, and how memory was to travel, by the destination."""
    ended = await Drive(await admit(around, order), around).run()
    return ended, [each.transport for each in site.world.prepared]


async def test_the_destination_s_entry_says_how_memory_travels_where_the_order_does_not(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.script.features = site.world.script.features_prepared = ["direct"]
    hosts = around.agents.hosts
    hosts["host-b"] = replace(hosts["host-b"], transport="direct")
    site.world.add("guest", "host-a")
    by_host = Asked(by_host=True)
    there, _ = await ordered(around, site, Order("guest", "host-b", asked=by_host))
    back, _ = await ordered(around, site, Order("guest", "host-a", asked=by_host))
    anywhere, _ = await ordered(around, site, Order("guest", "any", asked=by_host))
    site.world.add("other", "host-a")
    told, travelled = await ordered(around, site, Order("other", "host-b", MigrationPolicy(transport="grpc")))
    assert travelled == ["direct", "grpc", "direct", "grpc"]
    assert [one.policy.transport for one in (there, back, anywhere, told)] == travelled


async def test_a_host_that_cannot_take_what_is_configured_for_it_is_passed_over(
    site: FakeSite, around: Surroundings
) -> None:
    hosts = around.agents.hosts
    hosts["host-b"] = replace(hosts["host-b"], transport="direct")
    site.world.add("guest", "host-a")
    ended, travelled = await ordered(around, site, Order("guest", "any", asked=Asked(by_host=True)))
    assert (ended.outcome, travelled) == (Outcome.REFUSED, [])
    assert [one.code for one in ended.blockers] == ["transport-not-offered"]


async def test_a_retry_that_goes_elsewhere_travels_as_that_host_is_configured(
    site: FakeSite, around: Surroundings
) -> None:
    await site.serve("host-c")
    site.world.script.features = site.world.script.features_prepared = ["direct"]
    around.agents.hosts.update(site.addresses, **{"host-c": replace(site.addresses["host-c"], transport="direct")})
    site.world.add("guest", "host-a")
    site.world.script.failures = 1
    order = Order("guest", "any", asked=Asked(measure_ms=200, by_host=True), retries=1)
    first = Drive(await admit(around, order), replace(around, chance=lambda: 0.0))
    await first.run()
    assert first.successor is not None
    assert first.successor.asked == order.asked
    ended = await Drive(first.successor, around).run()
    assert (ended.outcome, ended.destination) == (Outcome.COMPLETED, "host-c")
    assert [each.transport for each in site.world.prepared] == ["grpc", "direct"]


def have_direct(config: Path, host: str) -> None:
    """Have a configuration say that memory travels directly to a host."""
    config.write_text(config.read_text().replace(f"[host.{host}]\n", f'[host.{host}]\ntransport = "direct"\n'))


async def test_the_command_s_own_configuration_counts_where_it_names_the_destination(
    site: FakeSite, viaduct: Run, config: Path
) -> None:
    site.world.script.features = site.world.script.features_prepared = ["direct"]
    have_direct(config, "host-b")
    site.world.add("guest", "host-a")
    for to, words in (("host-b", ()), ("host-a", ()), ("host-b", ("--transport", "grpc")), ("host-a", ()), ("any", ())):
        assert (await viaduct("migrate", "guest", "--to", to, *words, "--measure", "0s", "--json")).exit_code == 0
    assert [each.transport for each in site.world.prepared] == ["direct", "grpc", "grpc", "grpc", "direct"]
