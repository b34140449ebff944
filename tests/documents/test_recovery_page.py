"""The page about recovery names every finding, and shows what the commands print."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.command import run_here
from orchestrator.diagnosis import examination
from orchestrator.diagnosis.finding import Code
from orchestrator.recovery import settling
from tests.orchestrator.recovery.journalled_hosts import (
    Held,
    JournalledSite,
    activating,
    active,
    journalled_site,
    outgoing,
    owner,
    prepared,
    ready,
    released,
    replaced,
    retired,
    stopped,
)
from vm_migration.handover.journals import Journals

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recovery.md").read_text()
SHOWN = {
    line: output
    for line, output in re.findall(r"^```console\n\$ viaduct (.+)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE)
    if output and "$ " not in output
}
MOUNTED = "/mnt/host-a/viaduct/journal"
BEGUN = outgoing(owner())
STOPPED = stopped(BEGUN)
RELEASED = released(STOPPED)
READY = ready(prepared(BEGUN))


def test_every_finding_is_explained() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(Code)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JournalledSite]:
    monkeypatch.setattr(examination, "LOOK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(settling, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setenv("VIADUCT_INSECURE", "1")
    monkeypatch.setenv("VIADUCT_CONFIG", str(tmp_path / "viaduct.toml"))
    async with journalled_site("host-a", "host-b") as site:
        hosts = "".join(
            f'[host.{name}]\nsource = "{one.source}"\ndest = "{one.dest}"\n' for name, one in site.addresses.items()
        )
        (tmp_path / "viaduct.toml").write_text(f'[site]\nstore = "sqlite://{tmp_path}/orchestrator.db"\n{hosts}')
        with Journals(tmp_path / "journal").create(owner()) as journal:
            for record in (BEGUN, STOPPED):
                journal.append(record)
        yield site


async def shown(line: str, site: JournalledSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a line of the page and return what a person sees, with the page's addresses, who vouches where asked."""
    words = line.replace(MOUNTED, str(tmp_path / "journal")).split()
    vouches = "Type host-a" in SHOWN[line]
    await run_here([*words, "--yes"] if vouches else words)
    said = capsys.readouterr()
    text = said.err + ("Type host-a to vouch" if vouches else "") + said.out
    for port, address in ((7001, site.addresses["host-a"].source), (7002, site.addresses["host-a"].dest)):
        text = text.replace(address, f"10.0.0.1:{port}")
    text = re.sub(r"0\.\d+\.\d+ ", "0.2.0 ", text)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def on_the_page(line: str) -> str:
    """Return what the page shows, without what a person types."""
    return re.sub(r"(Type host-a to vouch).*\n", r"\1", SHOWN[line])


WHEN_OFF = ["doctor", "recover", *(line for line in SHOWN if line.startswith("recover --fenced"))]


def test_every_example_is_tested() -> None:
    assert {*WHEN_OFF, "recover --machine guest"} == set(SHOWN)
    assert len(WHEN_OFF) == 5


@pytest.mark.parametrize("line", WHEN_OFF)
async def test_what_is_printed_where_a_host_is_off(
    line: str, site: JournalledSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site["host-b"].hold(READY)
    await site.stop("host-a")
    assert await shown(line, site, tmp_path, capsys) == on_the_page(line)


async def test_what_is_printed_where_agents_go_on(
    site: JournalledSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site["host-a"].hold(RELEASED)
    destination = site["host-b"].hold(READY)

    def hand_over(held: Held) -> None:
        destination.record = replaced(active(activating(READY)), former_retired=True)
        held.record, held.process = retired(RELEASED), "gone"

    site["host-a"].on_recover = hand_over
    line = "recover --machine guest"
    assert await shown(line, site, tmp_path, capsys) == on_the_page(line)
