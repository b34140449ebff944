"""`viaduct report`: for every attempt that `viaduct show` knows, into a new file or over an earlier report."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest

from orchestrator.attempt import Attempt
from orchestrator.command import run_here
from orchestrator.store.sqlite import SqliteStore
from tests.orchestrator.attempts_to_draw import completed, copying, failed, refused
from tests.orchestrator.fake_agents import FakeSite, fake_site

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "viaduct.report.v1.json"


@dataclass
class Desk:
    """A folder, a store in it, and the command line."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def keep(self, attempt: Attempt) -> None:
        """Put an attempt into the store."""
        with SqliteStore(self.folder / "orchestrator.db") as store:
            store.open_attempt(attempt)

    async def says(self, *words: str) -> tuple[int, str, str]:
        """Run `viaduct report` and return its exit code and both streams."""
        exit_code = await run_here(["report", *words])
        said = self.capsys.readouterr()
        return exit_code, said.out, said.err

    @property
    def page(self) -> Path:
        return self.folder / "page.html"


@pytest.fixture
async def site() -> AsyncIterator[FakeSite]:
    async with fake_site("host-a", "host-b") as running:
        yield running


@pytest.fixture
def desk(site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    hosts = "".join(
        f'[host.{name}]\nsource = "{one.source}"\ndest = "{one.dest}"\n' for name, one in site.addresses.items()
    )
    (tmp_path / "viaduct.toml").write_text(f'[site]\nstore = "sqlite://{tmp_path}/orchestrator.db"\n{hosts}')
    monkeypatch.setenv("VIADUCT_INSECURE", "1")
    monkeypatch.setenv("VIADUCT_CONFIG", str(tmp_path / "viaduct.toml"))
    return Desk(tmp_path, capsys)


@pytest.mark.parametrize("attempt", [completed(), failed(), refused(), copying()], ids=lambda one: one.phase.value)
async def test_an_attempt_of_any_end_or_none_is_written_and_told(desk: Desk, attempt: Attempt) -> None:
    desk.keep(replace(attempt, driver="cli-host-1", heartbeat=4e9))
    exit_code, out, err = await desk.says(attempt.attempt[:8], "--html", str(desk.page), "--json")
    assert (exit_code, err) == (0, "")
    document = json.loads(out)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert document["file"] == str(desk.page)
    assert document["bytes"] == desk.page.stat().st_size
    assert "Migration of qat-guest" in desk.page.read_text()
    assert "Transitions" in desk.page.read_text()
    assert [path for path in desk.folder.iterdir() if path.name.startswith(".")] == []


async def test_an_earlier_report_is_replaced(desk: Desk) -> None:
    desk.keep(failed())
    await desk.says("1111", "--html", str(desk.page))
    before = desk.page.read_bytes()
    desk.page.write_text(desk.page.read_text() + "and more")
    exit_code, out, _ = await desk.says("1111", "--html", str(desk.page))
    assert (exit_code, desk.page.read_bytes()) == (0, before)
    assert str(desk.page) in out


async def test_any_other_file_is_left_alone(desk: Desk) -> None:
    desk.keep(failed())
    for text in ("", "a guest's specification"):
        desk.page.write_text(text)
        exit_code, out, err = await desk.says("1111", "--html", str(desk.page))
        assert (exit_code, out, desk.page.read_text()) == (3, "", text)
        assert "exists already and is no report" in err
    exit_code, _, err = await desk.says("1111", "--html", str(desk.folder))
    assert (exit_code, "is a folder" in err) == (3, True)


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["1111"], 2, "--html"),
        (["2222", "--html", "page.html"], 2, 'No attempt "2222" is known'),
        (["1111", "--html", "nowhere/page.html"], 3, "There is no folder"),
        (["1111", "--html", "/proc/page.html"], 3, "/proc/page.html cannot be written"),
    ],
)
async def test_what_cannot_be_done_is_said_in_two_lines_and_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str], exit_code: int, said: str
) -> None:
    monkeypatch.chdir(desk.folder)
    desk.keep(failed())
    code, out, err = await desk.says(*words)
    assert (code, out) == (exit_code, "")
    assert said in err
    assert err.count("\n") == 2
    assert not list(desk.folder.glob("**/*.html"))
