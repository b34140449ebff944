"""`viaduct machine dirty-rate` of a machine that a real agent holds, and that moves as well as ever afterwards."""

import json
from pathlib import Path

import jsonschema
import pytest

from orchestrator.agents import Agents
from tests.system.attempts import MIB, begin, jobs_done, machine, migrated, require_whole, specification, works
from tests.system.command import Ended, viaduct
from tests.system.site import Site
from vm_migration.errors import InvalidInput

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "viaduct.dirty_rate.v1.json"
RAM_PAGES = 64 * MIB // 4096


async def measured(site: Site, *words: str) -> Ended:
    return await viaduct(site, "machine", "dirty-rate", "measured", *words)


def number(document: dict[str, object], key: str) -> float:
    value = document[key]
    assert isinstance(value, int | float)
    return value


async def test_pages_of_processor_and_device_are_counted_and_the_machine_moves_afterwards(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("measured")) as created:
        before = await works(site, "host-a", created.machine)
        document = (await measured(site, "--window", "300ms", "--json")).document
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
        assert (document["machine"], document["host"], document["exact"], document["failure"]) == (
            "measured",
            "host-a",
            True,
            None,
        )
        cpu, dma, pages = (number(document, key) for key in ("cpu_pages", "dma_pages", "pages"))
        assert 0 < cpu <= pages
        assert 0 < dma <= pages
        assert pages <= min(cpu + dma, RAM_PAGES)
        assert number(document, "window_ms") >= 300
        assert number(document, "dirty_bytes_per_s") == pytest.approx(
            pages * 4096 / number(document, "window_ms") * 1000
        )
        assert await jobs_done(site, "host-a", created.machine) > before  # the device worked in the window too
        assert "DMA" in (await measured(site, "--window", "20ms")).out
        require_whole(await migrated(agents, created.machine, "host-a", "host-b"))


async def test_what_is_refused_is_refused_before_anything_is_logged(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("measured")) as created:
        for window in ("9ms", "2000h"):
            ended = await measured(site, "--window", window)
            assert (ended.exit_code, ended.out) == (2, ""), ended.err
            assert f"{window} is not within 10ms and 10s" in ended.err
        with pytest.raises(InvalidInput, match="nobody"):
            await agents.measure_dirty_rate("host-a", "nobody", 20)
        attempt = await begin(agents, created.machine, "host-a", "host-b")
        refused = await measured(site, "--window", "20ms", "--json")
        assert (refused.exit_code, refused.document["code"]) == (3, "attempt-open")
        await agents.cancel("host-a", attempt.key)
        await attempt.end()
        assert (await measured(site, "--window", "20ms", "--json")).exit_code == 0
