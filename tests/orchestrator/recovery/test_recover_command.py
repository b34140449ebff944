"""`viaduct recover` against hosts whose journals the test writes: what agents are told, what is waited for."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.attempt import Outcome, Phase
from orchestrator.recovery import settling
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership
from tests.orchestrator.recovery.documents import each, open_row, rows
from tests.orchestrator.recovery.journalled_hosts import (
    ATTEMPT,
    MACHINE,
    Held,
    JournalledSite,
    activating,
    active,
    outgoing,
    owner,
    prepared,
    ready,
    released,
    replaced,
    retired,
    stopped,
)
from tests.orchestrator.test_viaduct_command import Run
from vm_migration.handover.ownership import destroyed

BEGUN = outgoing(owner())
STOPPED = stopped(BEGUN)
RELEASED = released(STOPPED)
PREPARED = prepared(BEGUN)
READY = ready(PREPARED)
ACTIVE = active(activating(READY))


async def test_nothing_is_done_where_nothing_is_open(viaduct: Run, site: JournalledSite) -> None:
    held = site["host-a"].hold(owner())
    said = await viaduct("recover", "--json")
    assert (said.exit_code, said.document["steps"], said.document["unresolved"]) == (0, [], [])
    assert (site["host-a"].calls, held.record) == ([], owner())
    assert "Nothing was open" in (await viaduct("recover")).out


async def test_a_host_that_told_nothing_is_named_though_nothing_is_open_elsewhere(
    viaduct: Run, site: JournalledSite
) -> None:
    site["host-b"].hold(owner())
    await site.stop("host-a")
    said = await viaduct("recover", "--json")
    assert (said.exit_code, said.document["unresolved"], said.document["unheard"]) == (0, [], ["host-a"])
    told = (await viaduct("recover")).out
    assert "not heard  host-a" in told
    assert "Nothing was open at the hosts that answered" in told


@pytest.mark.parametrize("words", [(), ("--fenced", "host-b", "--yes")])
async def test_nothing_is_settled_where_no_host_answers(
    viaduct: Run, site: JournalledSite, words: tuple[str, ...]
) -> None:
    """It said that nothing was open, and exited with 0."""
    for host in site.hosts:
        await site.stop(host)
    said = await viaduct("recover", *words)
    assert (said.exit_code, said.out) == (3, "")
    assert "did not answer: nothing is known of what is open" in said.err
    assert "host-b" not in said.err or not words  # of which somebody vouches


async def test_somebody_must_be_left_where_hosts_are_said_to_be_off(viaduct: Run, site: JournalledSite) -> None:
    for host in site.hosts:
        await site.stop(host)
    first, *others = site.hosts
    words = [word for host in others for word in ("--also-off", host)]
    said = await viaduct("recover", "--fenced", first, *words, "--may-miss-writes", "--yes")
    assert (said.exit_code, said.out) == (2, "")
    assert "none is left to run anything" in said.err


async def test_agents_are_told_to_go_on_until_everything_is_settled(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(RELEASED)
    destination = site["host-b"].hold(READY)

    def hand_over(held: Held) -> None:
        if site["host-a"].calls.count("Recover") == 2:  # as if the link came back in between
            destination.record = replaced(ACTIVE, former_retired=True)
            held.record, held.process = retired(RELEASED), "gone"

    site["host-a"].on_recover = hand_over
    said = await viaduct("recover", "--json")
    assert (said.exit_code, said.document["unresolved"]) == (0, [])
    assert each(said.document, "steps", "host") == ["host-a", "host-b"]
    assert all(each(said.document, "steps", "done"))
    assert "READY -> ACTIVE" in str(rows(said.document, "steps")[1]["message"])


async def test_what_no_agent_can_decide_is_not_waited_for(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(RELEASED)
    site["host-b"].hold(activating(READY), "gone")
    async with asyncio.timeout(10):
        said = await viaduct("recover", "--json")
    assert (said.exit_code, each(said.document, "unresolved", "name")) == (6, ["guest"])
    (hint,) = each(said.document, "unresolved", "hint")
    assert "--fenced host-b --may-miss-writes" in str(hint)
    shown = await viaduct("recover")
    assert (shown.exit_code, shown.out.startswith("open  guest  ")) == (6, True)


async def test_a_silent_host_is_not_waited_for(viaduct: Run, site: JournalledSite) -> None:
    site["host-b"].hold(READY)
    await site.stop("host-a")
    async with asyncio.timeout(10):
        said = await viaduct("recover", "--json")
    assert (said.exit_code, site["host-b"].calls) == (6, ["Recover"])


async def test_waiting_has_an_end(viaduct: Run, site: JournalledSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site["host-a"].hold(RELEASED)
    site["host-b"].hold(READY)
    monkeypatch.setattr(settling.settle, "__defaults__", (0.05,))
    said = await viaduct("recover", "--json")
    assert (said.exit_code, each(said.document, "unresolved", "name")) == (6, ["guest"])


async def test_only_the_machine_that_was_named_goes_on(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(RELEASED)
    site["host-a"].hold(owner(name="web", machine="0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e02"))
    site["host-b"].hold(READY)
    said = await viaduct("recover", "--machine", "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e02", "--json")
    assert (said.exit_code, site["host-a"].calls) == (0, [])
    (await viaduct("recover", "--machine", "none")).complains(2, '"none"')


async def test_that_the_files_of_a_machine_are_gone_is_told_to_its_host_where_somebody_vouches_for_it(
    viaduct: Run, site: JournalledSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling.settle, "__defaults__", (0.05,))
    site["host-a"].hold(RELEASED)
    (await viaduct("recover", "--files-gone", "--yes")).complains(2, "of one machine", "--machine")
    named = ("recover", "--machine", "guest", "--files-gone")
    (await viaduct(*named, "--fenced", "host-b")).complains(2, "of no host that is off")
    (await viaduct(*named)).complains(3, "nobody can be asked here whether the files of guest are gone", "--yes")
    assert site["host-a"].calls == []
    await viaduct("recover", "--machine", "guest")
    await viaduct(*named, "--yes")
    asked = site["host-a"].files_gone
    assert (asked[0], asked[-1].endswith(": its files are gone")) == ("", True), asked
    assert len(set(asked)) == 2  # what was vouched for once is no word for the next time


async def test_no_machine_is_given_up_that_only_has_the_name_of_another(
    viaduct: Run, site: JournalledSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling.settle, "__defaults__", (0.05,))
    other = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e02"
    site["host-a"].hold(RELEASED)
    second = site["host-b"].hold(owner("host-b", machine=other))
    named = ("recover", "--files-gone", "--machine")
    for words in ((), ("--yes",)):  # also before anybody is asked to vouch for it
        (await viaduct(*named, "guest", *words)).complains(3, 'Two machines are named "guest"', MACHINE, other, "UUID")
    assert (site["host-a"].calls, site["host-b"].calls) == ([], [])
    await viaduct(*named, MACHINE, "--yes")
    assert (len(site["host-a"].calls) > 0, site["host-b"].calls) == (True, [])
    second.record = destroyed(owner("host-b", machine=other))  # nothing is left of it
    await viaduct(*named, "guest", "--yes")
    assert site["host-a"].files_gone[-1].endswith(": its files are gone")


async def test_the_orchestrator_s_own_row_is_closed(viaduct: Run, site: JournalledSite, config: Path) -> None:
    open_row(config)
    site["host-a"].hold(retired(RELEASED), "gone")
    site["host-b"].hold(replaced(ACTIVE, former_retired=True))
    said = await viaduct("recover", "--json")
    assert (said.exit_code, each(said.document, "steps", "action")) == (0, ["close-attempt"])
    with SqliteStore(config.parent / "orchestrator.db") as store:
        row = store.get(ATTEMPT)
        assert (row.phase, row.outcome, row.term) == (Phase.COMPLETED, Outcome.COMPLETED, 2)
        assert store.owners() == (Ownership(MACHINE, "guest", "host-b", 2),)


async def test_an_attempt_of_a_machine_that_is_open_is_told_once(
    viaduct: Run, site: JournalledSite, config: Path
) -> None:
    open_row(config)
    site["host-a"].hold(RELEASED)
    site["host-b"].hold(activating(READY), "gone")
    said = await viaduct("recover", "--json")
    assert (said.exit_code, each(said.document, "unresolved", "machine")) == (6, [MACHINE])
