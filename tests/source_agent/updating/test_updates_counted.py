"""An update is counted as what it is: nothing has left the host, and its standstill is no migration's."""

import pytest

from source_agent.agent import SourceAgent
from tests.source_agent.updating.life import Life
from tests.source_agent.updating.lives import a_host, living, steps_of_an_update, updated
from vm_migration.telemetry import counts, distributions, gauges
from vm_migration.telemetry.gauges import Gauge


def by_phase(agent: SourceAgent, gauge: Gauge) -> dict[str, float]:
    """Return the phases of which there is an attempt."""
    return {one.labels[0]: one.value for one in agent.readings() if one.gauge is gauge and one.value}


@pytest.mark.parametrize("mode", ["transfer", "exec"])
async def test_an_update_that_completed_is_counted_by_its_mode(mode: str) -> None:
    ended, left = counts.UPDATES_ENDED.read().get((mode, "completed"), 0), counts.MIGRATIONS_ENDED.read()
    stood, moved = distributions.UPDATE_DOWNTIME.read().get((mode,)), distributions.DOWNTIME.read()
    async with living(a_host(), Life()) as agent:
        await updated(agent, mode)
    assert counts.UPDATES_ENDED.read()[mode, "completed"] == ended + 1
    assert distributions.UPDATE_DOWNTIME.read()[mode,].up_to[-1] == (stood.up_to[-1] if stood else 0) + 1
    assert (counts.MIGRATIONS_ENDED.read(), distributions.DOWNTIME.read()) == (left, moved)


async def test_an_update_that_failed_has_no_standstill_to_tell() -> None:
    ended, stood = counts.UPDATES_ENDED.read(), distributions.UPDATE_DOWNTIME.read()
    host = a_host()
    host.refuses = "It cannot have this machine"
    async with living(host, Life()) as agent:
        await updated(agent)
    assert counts.UPDATES_ENDED.read()["transfer", "failed"] == ended.get(("transfer", "failed"), 0) + 1
    assert distributions.UPDATE_DOWNTIME.read() == stood


async def test_an_open_update_is_in_a_phase_of_its_own_and_leaves_nothing() -> None:
    steps = await steps_of_an_update()
    life = Life(steps.index("hand over") + 1)
    seen: list[dict[str, float]] = []
    async with living(a_host(), life) as agent:
        life.happens = lambda: seen.extend(by_phase(agent, one) for one in (gauges.UPDATES_IN_PHASE, gauges.IN_PHASE))
        await updated(agent)
        assert seen == [{"switching": 1}, {}]
        assert by_phase(agent, gauges.UPDATES_IN_PHASE) == {}
        assert not [one for one in agent.readings() if one.gauge is gauges.DATA_TOTAL]
