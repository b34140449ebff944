"""`viaduct recover --fenced HOST` against hosts whose journals the test writes, and a mounted journal."""

import asyncio
import os
import pty
import sys
from pathlib import Path

import pytest

from orchestrator.attempt import Outcome
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Ownership
from tests.orchestrator.recovery.documents import each, open_row
from tests.orchestrator.recovery.journalled_hosts import (
    ATTEMPT,
    MACHINE,
    SECRET,
    JournalledSite,
    aborted,
    activating,
    active,
    outgoing,
    owner,
    prepared,
    ready,
    released,
    stopped,
    whole,
)
from tests.orchestrator.test_viaduct_command import Run
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.handover.states import State

BEGUN = outgoing(owner())
STOPPED = stopped(BEGUN)
RELEASED = released(STOPPED)
PREPARED = prepared(BEGUN)
READY = ready(PREPARED)
ACTIVE = active(activating(READY))


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    """The journals of a host that is off, mounted here."""
    return Journals(tmp_path / "mounted" / "journal")


def written(journals: Journals, *history: Record) -> str:
    """Write what became of a machine at that host, from its creation on; return the folder."""
    with journals.create(owner()) as journal:
        for record in history:
            journal.append(record)
    return str(journals.folder)


async def test_a_released_machine_starts_with_the_secret_of_the_mounted_journal(
    viaduct: Run, site: JournalledSite, journals: Journals
) -> None:
    site["host-b"].hold(READY)
    folder = written(journals, BEGUN, STOPPED, RELEASED)
    before = {path: path.read_bytes() for path in journals.folder.iterdir()}
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--journal", folder, "--yes", "--json")
    assert (said.exit_code, each(said.document, "steps", "action")) == (0, ["hand-off"]), said.err
    assert (said.document["fenced"], each(said.document, "steps", "done")) == ("host-a", [True])
    record = site["host-b"].record(MACHINE)
    assert (record.state, record.former_retired) == (State.ACTIVE, True)
    assert {path: path.read_bytes() for path in journals.folder.iterdir()} == before
    for told in (said.out, said.err):
        assert SECRET.hex() not in told
    assert "starts on host-b: host-a released it at stop 7, and nothing is missing" in said.err


@pytest.mark.parametrize("here", [READY, whole(PREPARED)], ids=["ready", "whole"])
async def test_a_machine_that_died_at_its_stop_is_released_in_the_mounted_journal(
    viaduct: Run, site: JournalledSite, journals: Journals, here: Record
) -> None:
    site["host-b"].hold(here)
    folder = written(journals, BEGUN, STOPPED)
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--journal", folder, "--yes", "--json")
    assert (said.exit_code, each(said.document, "steps", "action")) == (0, ["release-and-hand-off"]), said.out
    assert site["host-b"].record(MACHINE).state is State.ACTIVE
    last = journals.read_last(MACHINE)
    assert (last.state, last.released_epoch) == (State.RELEASED, BEGUN.epoch)


async def test_an_arrival_that_cannot_be_finished_is_not_released(
    viaduct: Run, site: JournalledSite, journals: Journals
) -> None:
    site["host-b"].hold(whole(PREPARED))
    site["host-b"].finishes = False
    folder = written(journals, BEGUN, STOPPED)
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--journal", folder, "--yes", "--json")
    assert (said.exit_code, each(said.document, "steps", "done")) == (6, [False])
    assert journals.read_last(MACHINE).state is State.STOPPED


async def test_a_copy_whose_attempt_ended_is_discarded(viaduct: Run, site: JournalledSite, journals: Journals) -> None:
    site["host-b"].hold(READY)
    folder = written(journals, BEGUN, STOPPED, aborted(STOPPED))
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--journal", folder, "--yes", "--json")
    assert (said.exit_code, each(said.document, "steps", "action")) == (0, ["discard"])
    assert site["host-b"].record(MACHINE).state is State.DISCARDED


@pytest.mark.parametrize(
    ("fenced", "holder", "record", "outcome"),
    [("host-a", "host-b", READY, Outcome.COMPLETED), ("host-b", "host-a", RELEASED, Outcome.FAILED)],
)
async def test_writes_may_be_missing_only_by_name(
    viaduct: Run, site: JournalledSite, config: Path, *, fenced: str, holder: str, record: Record, outcome: Outcome
) -> None:
    open_row(config)
    site[holder].hold(record)
    await site.stop(fenced)
    (await viaduct("recover", "--fenced", fenced, "--yes")).complains(3, "guest", "--may-miss-writes")
    assert site[holder].calls == []
    said = await viaduct("recover", "--fenced", fenced, "--may-miss-writes", "--yes", "--json")
    assert "may be missing:" in said.err
    assert site[holder].calls[0] == "Take above 2"
    taken = site[holder].record(MACHINE)
    assert (taken.state, taken.owned_epoch) == (State.TAKEN, 3)
    assert f"{fenced} off, writes may be missing" in taken.reason
    assert each(said.document, "steps", "action")[1:] == ["close-attempt"]
    with SqliteStore(config.parent / "orchestrator.db") as store:
        assert store.owners() == (Ownership(MACHINE, "guest", holder, 3),)
        assert store.get(ATTEMPT).outcome is outcome


async def test_a_machine_of_which_no_image_is_left_is_written_off(viaduct: Run, site: JournalledSite) -> None:
    site["host-b"].hold(activating(READY), "gone")
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--may-miss-writes", "--yes", "--json")
    assert (said.exit_code, each(said.document, "steps", "action")) == (0, ["write-off"])
    assert "may be missing: all of it" in said.err
    assert site["host-b"].record(MACHINE).state is State.LOST
    assert each((await viaduct("doctor", "--json")).document, "machines", "state") == ["lost"]


async def test_nobody_is_asked_where_there_is_no_terminal(viaduct: Run, site: JournalledSite) -> None:
    site["host-b"].hold(ACTIVE)
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a")
    assert (said.exit_code, site["host-b"].calls) == (3, [])
    assert "goes on on host-b and may be moved again" in said.err
    assert said.err.endswith("  fix: Vouch for it with --yes, or run this on a terminal\n")
    done = await viaduct("recover", "--fenced", "host-a", "--yes")
    assert (done.exit_code, site["host-b"].calls) == (0, ["NoteRetired"])


@pytest.mark.parametrize(("typed", "exit_code", "calls"), [("host-a\n", 0, ["NoteRetired"]), ("yes\n", 3, [])])
async def test_on_a_terminal_the_name_of_the_host_is_asked_for(
    site: JournalledSite, config: Path, typed: str, exit_code: int, calls: list[str]
) -> None:
    site["host-b"].hold(ACTIVE)
    await site.stop("host-a")
    ours, theirs = pty.openpty()
    try:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator.command", "recover", "--fenced", "host-a"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=dict(os.environ),
        )
        seen = await _until(ours, b"brought back here: ")
        assert b"goes on on host-b" in seen
        os.write(ours, typed.encode())
        async with asyncio.timeout(30):
            assert await command.wait() == exit_code
    finally:
        os.close(ours)
        os.close(theirs)
    assert site["host-b"].calls == calls


async def _until(descriptor: int, words: bytes) -> bytes:
    """Read a terminal until it shows some words."""
    seen = b""
    async with asyncio.timeout(30):
        while words not in seen:
            seen += await asyncio.to_thread(os.read, descriptor, 4096)
    return seen


async def test_a_host_that_answers_is_not_off(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(RELEASED)
    site["host-b"].hold(READY)
    said = await viaduct("recover", "--fenced", "host-b", "--may-miss-writes", "--yes")
    said.complains(3, "host-b answers")
    assert site["host-a"].calls == []


async def test_every_wrong_option_is_told_at_once(viaduct: Run, tmp_path: Path, config: Path) -> None:
    folder = str(tmp_path)
    (await viaduct("recover", "--journal", folder, "--may-miss-writes")).complains(
        2, "2 faults", "--journal, --may-miss-writes without --fenced", "holds no journals"
    )
    (await viaduct("recover", "--fenced", "nowhere", "--also-off", "no-one", "--journal", f"{folder}/x")).complains(
        2, "4 faults", '"nowhere"', '"no-one"', "--also-off without --may-miss-writes", "is no folder"
    )
    (await viaduct("recover", "--fenced", "host-a", "--journal", str(config))).complains(2, "cannot be read")
    (await viaduct("recover", "--fenced", "host-a", "--machine", "none")).complains(2, '"none"')


async def test_the_state_folder_in_the_place_of_its_journals_is_told(viaduct: Run, journals: Journals) -> None:
    folder = Path(written(journals, BEGUN, STOPPED))
    said = await viaduct("recover", "--fenced", "host-a", "--journal", str(folder.parent))
    said.complains(2, f"fix: Name {folder}")
