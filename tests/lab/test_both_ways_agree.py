"""One scenario of each kind, through real agents and in this process: what both ways can see, both see alike."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import pytest
import pytest_asyncio

from lab import matrix as lab_matrix
from lab.catalogue import find
from lab.observation import Observation, disagreements
from lab.page_comparison import differing_pages
from lab.rehearsal.rehearsal import rehearse
from lab.scenario import Action, Scenario
from lab.through_agents.console import Console
from lab.through_agents.laboratory import laboratory
from lab.through_agents.process_ram import NoRam, open_ram, pid_of
from lab.through_agents.scenario_run import PLAYS, Laboratory, run_through_agents
from tests.lab.rehearsed_machines import small_scenario
from vm_migration.errors import AttemptFailed, InvalidInput
from vm_migration.machine.run_directory import RunDirectory
from vmm.assembly.specification import check_specification

pytestmark = pytest.mark.asyncio(loop_scope="module")
BUDGET = 768 << 20
KINDS = {
    "cell-scalable-iommufd-nopt": "completed, the device switched meanwhile",
    "query-before-unmap-off": "pages lost, and refused",
    "region-del-off": "pages lost by what the guest did in a round",
    "unmap-by-mapping-off-type1-little-memory": "failed with a text",
    "type1-auto-legacy-nopt": "blocked by the plan",
    "no-p2p-two": "blocked when it should move",
    "type1-auto-allowed-when-on": "allowed with a warning",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site() -> AsyncIterator[Laboratory]:
    async with laboratory(BUDGET) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared_site: Laboratory) -> AsyncIterator[Laboratory]:
    """The site, on which an earlier scenario has complained, and which every test leaves empty."""
    with (shared_site.configuration.parent / "earlier.log").open("a") as log:
        log.write(json.dumps({"level": "error", "event": "of an earlier scenario"}) + "\n")
    yield shared_site
    left = [each.path for folder in shared_site.run_directories.values() for each in RunDirectory(folder).all()]
    assert left == []


def seen_alike(one: Observation) -> tuple[object, ...]:
    lost = None if one.lost_pages is None else bool(one.lost_pages)
    return one.outcome, one.error, set(one.blockers), one.verifier, lost, one.guest_errors, bool(one.switches)


@pytest.mark.parametrize("name", KINDS, ids=lambda name: KINDS[name].replace(" ", "-"))
async def test_agents_and_rehearsal_see_the_same(name: str, site: Laboratory) -> None:
    (scenario,) = find(name)
    rehearsed, real = rehearse(scenario), await run_through_agents(scenario, site)
    assert disagreements(scenario.document.expect, rehearsed) == ()
    assert disagreements(scenario.document.expect.from_outside(), real) == ()
    assert seen_alike(real) == seen_alike(rehearsed)
    assert set(rehearsed.warnings) <= set(real.warnings)


async def test_a_moment_that_never_came_is_told(site: Laboratory) -> None:
    small = small_scenario(work_ms=10, downtime_limit_ms=4000)
    late = small.document.model_copy(update={"action": (Action(at="round-90", do="quiet"),)})
    seen = await run_through_agents(Scenario(late, small.machine), site)
    assert (seen.outcome, seen.missed) == ("completed", ("round-90",))
    assert disagreements(late.expect, seen) == ("nothing was done at round-90: it was over before",)
    assert disagreements(late.expect, replace(seen, missed=())) == ()


async def test_what_is_to_be_done_at_a_machine_that_has_moved_is_told_as_missed(
    site: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(_console: Console, action: str, device: str | None) -> None:
        raise AttemptFailed("no-answer", f"Nobody is there to {action} {device}", "")

    monkeypatch.setattr(Console, "type", gone)
    small = small_scenario(work_ms=10, downtime_limit_ms=4000)
    late = small.document.model_copy(update={"action": (Action(at="tracking", do="quiet"),)})
    seen = await run_through_agents(Scenario(late, small.machine), site)
    assert (seen.outcome, seen.missed) == ("completed", ("tracking",))


async def test_nothing_is_left_of_a_scenario_that_cannot_go_on(site: Laboratory) -> None:
    small = small_scenario(work_ms=10, downtime_limit_ms=4000, bandwidth="40MB/s")
    wrong = small.document.model_copy(update={"action": (Action(at="round-0", do="churn", device="qat0"),)})
    with pytest.raises(ExceptionGroup) as raised:
        await run_through_agents(Scenario(wrong, small.machine), site)
    assert raised.group_contains(InvalidInput, match="Guest refuses to churn: ")  # and the site's fixture looks


async def test_a_machine_is_looked_at_and_typed_to_from_outside(site: Laboratory) -> None:
    source, other = site.run_directories.values()
    (agent, _) = site.agents.values()
    machine = (await agent.create(check_specification({"name": "seen", "memory": {"size": "64MiB"}}, "seen"))).machine
    try:
        one, again = open_ram(pid_of(source, machine)), open_ram(pid_of(source, machine))
        assert (one.size, differing_pages(one, again)) == (64 << 20, frozenset())
        one.close()
        again.close()
        with pytest.raises(NoRam, match=f"{machine} is not in {other}"):
            pid_of(other, machine)
        console = Console(source, machine)
        with pytest.raises(InvalidInput, match="Guest refuses to block: "):
            await console.type("block", "qat0")
        assert (await console.look()).errors == 0
        await console.until_done()
    finally:
        await agent.destroy(machine)
    with pytest.raises(AttemptFailed, match="does not answer"):
        await console.look()


async def test_the_matrix_is_the_cells_and_then_the_rest(site: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, rest = find("type1-auto-scalable-pt")[0], find("query-before-unmap")

    @asynccontextmanager
    async def of_the_test(memory_budget: int) -> AsyncIterator[Laboratory]:
        assert memory_budget >= 2 * cell.machine.memory.size
        yield site

    monkeypatch.setattr(lab_matrix, "find", {lab_matrix.CELLS: (cell,)}.__getitem__)
    monkeypatch.setattr(lab_matrix, "shipped", lambda: (rest[0], cell, *rest[1:]))
    monkeypatch.setattr(lab_matrix, "laboratory", of_the_test)
    said: list[str] = []
    rows = await lab_matrix.matrix(said.append)
    assert [(row.scenario, row.way) for row in rows] == [
        (cell.name, "agents"),
        *((one.name, "in-process") for one in rest),
    ]
    assert (said, [row.ok for row in rows]) == ([cell.name], [True] * len(rows))


@pytest.mark.parametrize(("expected", "lost", "plays"), [("some", [7], 3), ("none", [], 1), (None, [], 1)])
async def test_only_a_loss_that_is_to_be_shown_is_looked_for_again(
    expected: Literal["none", "some"] | None,
    lost: list[int],
    plays: int,
    site: Laboratory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = [Observation("completed", lost_pages=frozenset(pages)) for pages in ((), (), (7,), (7,))]

    async def played(scenario: Scenario, laboratory: Laboratory) -> Observation:
        assert (scenario.document.name, laboratory) == ("small", site)
        return shown.pop(0)

    monkeypatch.setattr("lab.through_agents.scenario_run._played", played)
    small = small_scenario()
    document = small.document.model_copy(
        update={"expect": small.document.expect.model_copy(update={"pages_lost": expected})}
    )
    assert (await run_through_agents(Scenario(document, small.machine), site)).lost_pages == frozenset(lost)
    assert len(shown) == 4 - plays


async def test_a_loss_that_never_shows_is_looked_for_five_times(
    site: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [Observation("completed", lost_pages=frozenset())] * (PLAYS + 1)

    async def played(_scenario: Scenario, _laboratory: Laboratory) -> Observation:
        return shown.pop()

    monkeypatch.setattr("lab.through_agents.scenario_run._played", played)
    (scenario,) = find("region-del-off")
    assert (await run_through_agents(scenario, site)).lost_pages == frozenset()
    assert len(shown) == 1
