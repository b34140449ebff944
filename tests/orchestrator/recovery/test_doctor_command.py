"""`viaduct doctor` against hosts whose journals the test writes: documents, exit codes, words."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.orchestrator.recovery.documents import each
from tests.orchestrator.recovery.journalled_hosts import (
    SECRET,
    JournalledSite,
    outgoing,
    owner,
    prepared,
    ready,
)
from tests.orchestrator.test_viaduct_command import Run

BEGUN = outgoing(owner())
PREPARED = prepared(BEGUN)
READY = ready(PREPARED)


async def test_the_doctor_says_that_nothing_is_wrong(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(owner())
    said = await viaduct("doctor", "--json")
    assert (said.exit_code, said.document["schema"], said.document["findings"]) == (0, "viaduct.doctor.v1", [])
    assert each(said.document, "machines", "state") == ["running"]
    assert each(said.document, "hosts", "source") == ["answers"] * 3
    shown = await viaduct("doctor")
    assert (shown.exit_code, shown.err) == (0, "")
    for words in ("guest", "host-a", "OWNER", "running", "Nothing is wrong"):
        assert words in shown.out


async def test_the_doctor_names_a_silent_host_and_what_waits_for_it(viaduct: Run, site: JournalledSite) -> None:
    site["host-b"].hold(READY)
    await site.stop("host-a")
    said = await viaduct("doctor", "--json")
    assert said.exit_code == 8
    assert each(said.document, "findings", "code") == ["handover-waiting", "host-silent"]
    assert each(said.document, "hosts", "source") == ["unreachable", "answers", "answers"]
    shown = await viaduct("doctor")
    assert "problem handover-waiting: host-b holds guest whole" in shown.out
    assert "    fix: Start the agents of host-a; where it is off for good: viaduct recover --fenced host-a" in shown.out


async def test_one_agent_of_a_host_is_enough_to_know_what_it_has(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(owner())
    await site.stop("host-a", "source")
    document = (await viaduct("doctor", "--json")).document
    assert each(document, "machines", "state") == ["running"]
    assert each(document, "findings", "code") == ["host-silent"]


async def test_notices_alone_are_no_problem(viaduct: Run, site: JournalledSite) -> None:
    site["host-a"].hold(BEGUN)
    site["host-b"].hold(PREPARED)
    said = await viaduct("doctor", "--json")
    assert (said.exit_code, each(said.document, "findings", "severity")) == (0, ["notice"])


@pytest.fixture
def broken_services(config: Path) -> None:
    (config.parent / "orchestrator.db").write_text("not a database, and long enough to be read as one " * 40)
    config.write_text(config.read_text().replace("[host.host-a]", 'mqtt = "mqtt://127.0.0.1:1"\n[host.host-a]'))


@pytest.mark.usefixtures("broken_services")
async def test_the_doctor_tries_the_store_and_the_broker(viaduct: Run) -> None:
    said = await viaduct("doctor", "--json")
    assert (said.exit_code, each(said.document, "findings", "code")) == (8, ["store-unusable", "broker-unreachable"])


async def test_the_doctor_makes_no_store(viaduct: Run, config: Path) -> None:
    assert (await viaduct("doctor")).exit_code == 0
    assert not (config.parent / "orchestrator.db").exists()


@pytest.fixture
def password(config: Path) -> str:
    config.chmod(0o600)
    config.write_text(config.read_text() + '[mqtt]\nuser = "me"\npassword = "a-pass-word"\n')
    return "a-pass-word"


async def test_a_bundle_holds_everything_but_secrets(
    viaduct: Run, site: JournalledSite, config: Path, password: str
) -> None:
    site["host-a"].hold(BEGUN)
    site["host-b"].hold(PREPARED)
    bundle = config.parent / "help.tar.gz"
    said = await viaduct("doctor", "--bundle", str(bundle))
    assert str(bundle) in said.out
    with tarfile.open(bundle) as archive:
        files = {one.name.partition("/")[2]: archive.extractfile(one) for one in archive}
        contents = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert set(contents) == {
        "report.json",
        "configuration.json",
        "versions.json",
        *(f"custodies/{host}.json" for host in ("host-a", "host-b", "host-c")),
    }
    assert json.loads(contents["report.json"])["schema"] == "viaduct.doctor.v1"
    assert "OUTGOING" in contents["custodies/host-a.json"]
    for text in contents.values():
        assert SECRET.hex() not in text
        assert password not in text
    assert bundle.stat().st_mode & 0o077 == 0
    before = bundle.read_bytes()
    (await viaduct("doctor", "--bundle", str(bundle))).complains(3, "exists already")
    assert bundle.read_bytes() == before
    (await viaduct("doctor", "--bundle", str(config.parent / "none" / "x"))).complains(3, "no folder")
