"""The command line against fake agents: documents against their schemas, exit codes, two lines on stderr."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jsonschema
import pytest

from orchestrator.attempt import Phase
from orchestrator.command import run_here
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.fake_agents import FakeSite, fake_site
from vm_migration.api.v1 import types_pb2

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
Json = dict[str, "Value"]
Value = str | int | float | bool | None | list["Value"] | Json

SPECIFICATION = """
name = "qat-guest"
memory.size = "256MiB"
[guest]
working_set = "64MiB"
cpu_dirty_rate = "10MiB/s"
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
"""


@dataclass
class Said:
    """What a command left: its exit code and its two streams."""

    exit_code: int
    out: str
    err: str

    @property
    def document(self) -> Json:
        """The one document on stdout, valid by its schema."""
        document: Json = json.loads(self.out)
        schema = json.loads((SCHEMAS / f"{document['schema']}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(document)
        return document

    def complains(self, exit_code: int, *words: str) -> None:
        """Check the exit code and the two lines."""
        assert self.exit_code == exit_code, self.err
        assert re.fullmatch(r"error: \S.+\n  fix: [A-Z].+\n", self.err), self.err
        for word in words:
            assert word in self.err


class Run(Protocol):
    """Runs one command line of `viaduct`."""

    async def __call__(self, *words: str) -> Said: ...


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b") as running:
        yield running


@pytest.fixture
def config(site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIADUCT_INSECURE", "1")
    path = tmp_path / "viaduct.toml"
    hosts = "".join(
        f'[host.{name}]\nsource = "{one.source}"\ndest = "{one.dest}"\n' for name, one in site.addresses.items()
    )
    path.write_text(f'[site]\nname = "home"\nstore = "sqlite://{tmp_path}/orchestrator.db"\n{hosts}')
    monkeypatch.setenv("VIADUCT_CONFIG", str(path))
    return path


@pytest.fixture
def store(config: Path) -> Path:
    return config.parent / "orchestrator.db"


@pytest.fixture
def viaduct(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    async def run(*words: str) -> Said:
        exit_code = await run_here(words)
        captured = capsys.readouterr()
        return Said(exit_code, captured.out, captured.err)

    return run


async def test_a_machine_is_created_looked_at_moved_and_destroyed(viaduct: Run, tmp_path: Path) -> None:
    file = tmp_path / "guest.toml"
    file.write_text(SPECIFICATION)
    created = await viaduct("machine", "create", str(file), "--host", "host-a", "--json")
    assert created.document["schema"] == "viaduct.machine.v1"
    assert (await viaduct("machine", "list", "--json")).document["silent"] == []
    assert (await viaduct("machine", "pause", "qat-guest", "--json")).exit_code == 0
    assert "paused" in (await viaduct("machine", "show", "qat-guest")).out
    for act in ("resume", "suspend", "wake"):
        assert (await viaduct("machine", act, "qat-guest", "--json")).exit_code == 0
    checked = await viaduct("preflight", "qat-guest", "--to", "any", "--explain", "--json")
    assert (checked.exit_code, checked.document["destination"]) == (0, "host-b")
    dry = await viaduct("migrate", "qat-guest", "--to", "host-b", "--dry-run", "--json")
    assert dry.document["schema"] == "viaduct.preflight.v1"

    moved = await viaduct("migrate", "qat-guest", "--to", "host-b", "--json")
    document = moved.document
    assert (moved.exit_code, document["outcome"], document["pages_mismatched"]) == (0, "completed", 0)
    assert moved.err == ""

    assert (await viaduct("list", "--json")).document["attempts"] == []
    assert "completed" in (await viaduct("list", "--all")).out
    attempt = str(document["attempt"])
    shown = (await viaduct("show", attempt[:8], "--events", "--json")).document
    events = shown["events"]
    assert isinstance(events, list)
    assert [one["sequence"] for one in events if isinstance(one, dict)] == list(range(1, len(events) + 1))
    assert (await viaduct("watch", attempt, "--json")).document["outcome"] == "completed"
    assert (await viaduct("machine", "destroy", "qat-guest", "--json")).exit_code == 0
    assert "no machines" in (await viaduct("machine", "list")).out


async def test_hosts_are_listed_and_one_that_is_away_is_named(viaduct: Run, site: FakeSite) -> None:
    await site.stop("host-b")
    listed = await viaduct("host", "list", "--json")
    hosts = listed.document["hosts"]
    assert isinstance(hosts, list)
    answers = {
        one["host"]: one["dest"]["answers"] for one in hosts if isinstance(one, dict) if isinstance(one["dest"], dict)
    }
    assert answers == {"host-a": True, "host-b": False}
    assert (await viaduct("host", "show", "host-a", "--json")).document["schema"] == "viaduct.host.v1"
    (await viaduct("host", "show", "host-b")).complains(3, "host-b")
    machines = await viaduct("machine", "list")
    assert "host-b did not answer" in machines.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["host", "show", "host-z"], "host-z"),
        (["migrate"], "MACHINE"),
        (["migrate", "guest", "--to", "host-b", "--downtime-limit", "soon"], "soon"),
        (["migrate", "guest", "--to", "host-b", "--verify", "maybe"], "maybe"),
        (["migrate", "guest", "--to", "host-b", "--transport", "pigeon"], "pigeon"),
        (["migrate", "guest", "--to", "host-b", "--streams", "17"], "17"),
        (["migrate", "guest", "--to", "host-b", "--compression", "zip"], "zip"),
        (["migrate", "guest", "--to", "host-b", "--priority", "-1"], "-1"),
        (["tune", "12345678"], "--downtime-limit"),
        (["tune", "12345678", "--downtime-limit", "soon"], "soon"),
        (["tune", "12345678", "--downtime-limit", "0ms"], "limit of nothing"),
        (["tune", "12345678", "--max-bandwidth", "fast"], "fast"),
        (["tune", "12345678", "--max-bandwidth", "1MiB/s"], "12345678"),
        (["force", "12345678"], "12345678"),
        (["migrate", "guest", "--to", "host-b", "--detach"], "viaduct orchestrator"),
        (["migrate", "nobody", "--to", "host-b"], "nobody"),
        (["migrate", "guest", "--to", "host-z"], "host-z"),
        (["preflight", "nobody", "--to", "host-z"], "host-z"),
        (["machine", "create", "nowhere.toml", "--host", "host-a"], "nowhere.toml"),
        (["machine", "show", "nobody"], "nobody"),
        (["show", "12345678"], "12345678"),
        (["levitate", "host-a"], "levitate"),
        (["pki", "show", "nothing.pem"], "nothing.pem"),
    ],
)
async def test_bad_input_is_two_lines_and_exit_code_2(
    viaduct: Run, site: FakeSite, store: Path, words: list[str], said: str
) -> None:
    site.world.add("guest", "host-a")
    (await viaduct(*words)).complains(2, said)
    as_json = await viaduct(*words, "--json")
    assert (as_json.document["schema"], as_json.document["exit_code"]) == ("viaduct.error.v1", 2)
    assert site.world.calls == []
    with SqliteStore(store) as opened:
        assert opened.attempts(everything=True) == ()


async def test_a_machine_s_dirty_rate_is_measured_where_it_is(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-b")
    found = (await viaduct("machine", "dirty-rate", "guest", "--window", "500ms", "--json")).document
    assert (found["machine"], found["host"], found["pages"], found["exact"]) == ("guest", "host-b", 450, True)
    assert found["dirty_bytes_per_s"] == 450 * 4096 / 0.5
    assert "450 pages" in (await viaduct("machine", "dirty-rate", "guest", "--window", "500ms")).out


async def test_every_fault_of_a_specification_is_told_at_once(viaduct: Run, tmp_path: Path, site: FakeSite) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        SPECIFICATION.replace('"qat"', '"toaster"').replace("working_set", "wroking_set") + 'backend = "vfio"\n'
    )
    said = await viaduct("machine", "create", str(file), "--host", "host-a")
    said.complains(2, "bad.toml", "guest.wroking_set", "device[0].model", "device[0].backend", "iommufd")
    assert site.world.machines == {}


async def test_a_host_migrated_to_itself_is_refused(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    said = await viaduct("migrate", "guest", "--to", "host-a", "--json")
    assert said.document["outcome"] == "refused"
    assert [one["code"] for one in _dicts(said.document["blockers"])] == ["same-host"]
    said.complains(3, "host-a")
    (await viaduct("preflight", "guest", "--to", "host-a")).complains(3, "same-host")
    assert site.world.calls == []


async def test_two_machines_of_one_name_are_refused_naming_both_hosts(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.add("guest", "host-b")
    said = await viaduct("migrate", "guest", "--to", "host-b", "--json")
    said.complains(3, "host-a", "host-b")
    assert said.document["outcome"] == "refused"
    (await viaduct("machine", "show", "guest")).complains(3, "host-a", "host-b")


async def test_a_name_that_is_taken_is_refused(viaduct: Run, site: FakeSite, tmp_path: Path) -> None:
    file = tmp_path / "guest.toml"
    file.write_text(SPECIFICATION)
    site.world.add("qat-guest", "host-b")
    (await viaduct("machine", "create", str(file), "--host", "host-a")).complains(3, "qat-guest", "host-b")


async def test_an_unreachable_destination_is_refused_before_anything(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    await site.stop("host-b")
    said = await viaduct("migrate", "guest", "--to", "host-b", "--json")
    said.complains(3, "host-b")
    assert "unreachable" in [one["code"] for one in _dicts(said.document["blockers"])]
    assert site.world.calls == []


@pytest.fixture
def without_certificates(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIADUCT_INSECURE")
    tls = "\n".join(f'{key} = "{config.parent}/none.pem"' for key in ("ca", "certificate", "key"))
    config.write_text(config.read_text() + f"[tls]\n{tls}\n")


@pytest.mark.usefixtures("without_certificates")
async def test_a_missing_certificate_is_named(viaduct: Run) -> None:
    (await viaduct("machine", "list")).complains(2, "none.pem")


@pytest.mark.parametrize(("how", "exit_code"), [("failed", 4), ("lost", 7)])
async def test_the_exit_code_says_how_it_ended(viaduct: Run, site: FakeSite, how: str, exit_code: int) -> None:
    site.world.add("guest", "host-a")
    site.world.script.ends_with = how
    said = await viaduct("migrate", "guest", "--to", "host-b", "--json")
    said.complains(exit_code, "It went wrong")
    assert (said.document["outcome"], said.document["downtime"]) == (how, None)


async def test_cancel_reaches_the_source_whoever_drives(viaduct: Run, site: FakeSite, store: Path) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    driving = await _driver("migrate", "guest", "--to", "host-b", "--json")
    await site.world.script.reached.wait()
    with SqliteStore(store) as opened:
        (row,) = opened.attempts()
    cancelled = await viaduct("cancel", row.attempt[:8], "--json")
    assert cancelled.exit_code == 0, cancelled.err
    out, _ = await driving.communicate()
    assert driving.returncode == 5
    assert json.loads(out)["outcome"] == "cancelled"
    (await viaduct("cancel", row.attempt)).complains(3, "has ended")


async def test_force_and_tune_reach_the_source_whoever_drives(viaduct: Run, site: FakeSite, store: Path) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    driving = await _driver("migrate", "guest", "--to", "host-b", "--on-timeout", "force", "--json")
    await site.world.script.reached.wait()
    await _reached(store, Phase.PRE_COPY)
    with SqliteStore(store) as opened:
        (row,) = opened.attempts()
    tuned = await viaduct("tune", row.attempt[:8], "--downtime-limit", "2s", "--max-bandwidth", "8Mbit/s", "--json")
    assert tuned.document["schema"] == "viaduct.attempt.v1", tuned.err
    only_one = await viaduct("tune", row.attempt, "--downtime-limit", "400ms")
    assert "downtime limit 400 ms from now on" in only_one.out
    unbound = await viaduct("tune", row.attempt, "--max-bandwidth", "unlimited")
    assert "bandwidth unlimited from now on" in unbound.out
    assert (await viaduct("force", row.attempt, "--json")).exit_code == 0
    out, _ = await driving.communicate()
    assert json.loads(out)["outcome"] == "completed"
    assert site.world.calls[-3:] == ["Tune 400 0", f"Tune 0 {1 << 62}", "Force"]
    for words in (["force", row.attempt], ["tune", row.attempt, "--downtime-limit", "1s"]):
        (await viaduct(*words)).complains(3, "has ended: completed")


@pytest.mark.parametrize(
    ("held_at", "force_says"), [("begun", "sends no memory yet"), ("releasing", "point of no return")]
)
async def test_force_and_tune_are_refused_where_they_come_too_early_or_too_late(
    viaduct: Run, site: FakeSite, store: Path, held_at: str, force_says: str
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = held_at
    driving = await _driver("migrate", "guest", "--to", "host-b")
    await site.world.script.reached.wait()
    await _reached(store, Phase(held_at))
    with SqliteStore(store) as opened:
        (row,) = opened.attempts()
    (await viaduct("force", row.attempt)).complains(3, force_says)
    tuned = await viaduct("tune", row.attempt, "--downtime-limit", "1s")
    assert (tuned.exit_code, "point of no return" in tuned.err) == ((0, False) if held_at == "begun" else (3, True))
    site.world.script.go.set()
    await driving.communicate()
    assert driving.returncode == 0


@pytest.mark.parametrize(
    ("held_at", "says", "says_again", "exit_code"),
    [
        ("pre-copy", "Cancelling", "Cancelling still", 5),
        ("handing-over", "past the point of no return: waiting", "past the point of no return: waiting", 0),
    ],
)
async def test_ctrl_c_cancels_before_the_point_of_no_return_and_waits_after_it(  # noqa: PLR0917 - a table
    site: FakeSite, store: Path, held_at: str, says: str, says_again: str, exit_code: int
) -> None:
    site.world.add("guest", "host-a")
    site.world.script.hold_at = held_at
    site.world.script.cancel_waits = asyncio.Event()
    async with _beside("migrate", "guest", "--to", "host-b") as driving:
        await site.world.script.reached.wait()
        await _reached(store, Phase(held_at))
        assert driving.stderr is not None
        for expected in (says, says_again):
            driving.send_signal(signal.SIGINT)
            assert expected in (await driving.stderr.readline()).decode()
        site.world.script.cancel_waits.set()
        if exit_code == 0:
            site.world.script.go.set()
        await driving.communicate()
    assert driving.returncode == exit_code


async def test_a_port_in_use_is_refused(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = await _driver("orchestrator", "--listen", address)
        _, err = await daemon.communicate()
    assert daemon.returncode == 3
    last_words = [line for line in err.decode().splitlines() if not line.startswith("{")]
    assert len(last_words) == 2
    assert address in last_words[0]


async def _driver(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator.command", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )


@contextlib.asynccontextmanager
async def _beside(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command beside the test; it is gone at the end."""
    process = await _driver(*words)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _reached(store: Path, phase: Phase) -> None:
    with contextlib.closing(SqliteStore(store)) as opened:
        while opened.attempts()[0].phase != phase:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)


def _dicts(value: Value) -> list[Json]:
    assert isinstance(value, list)
    return [one for one in value if isinstance(one, dict)]


async def test_a_warning_of_preflight_is_shown_with_what_blocks(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.script.blockers = [types_pb2.Blocker(code="no-p2p", message="No P2P states", device="qat0")]
    said = await viaduct("preflight", "guest", "--to", "host-b")
    said.complains(3, "no-p2p")
    for words in ("no-p2p (qat0): No P2P states", "slow-link", "expected: 2 rounds"):
        assert words in said.out
