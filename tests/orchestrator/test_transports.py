"""A transport that is asked for is used or refused: none is chosen in its place."""

import pytest

from orchestrator.admission import Order, admit
from orchestrator.attempt import Outcome, Phase
from orchestrator.drive import Drive, Surroundings
from orchestrator.policy import MOST_STREAMS, MigrationPolicy, require_offered
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.errors import InvalidInput

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
