import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from orchestrator.command import viaduct
from vm_migration.daemon.configuration import load
from vmm.assembly.specification import load_specification

FENCE = re.compile(r"^```(?:console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Return the `viaduct` command lines of a page, as words: what follows a `$ ` in its console blocks."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]
    return [line[1:] for line in words if line and line[0] == "viaduct"]


def below(entry: click.Command) -> Iterator[click.Command]:
    """Yield a command and all of its subcommands."""
    yield entry
    if isinstance(entry, click.Group):
        context = click.Context(entry)
        for name in entry.list_commands(context):
            found = entry.get_command(context, name)
            assert found is not None
            yield from below(found)


@pytest.fixture
def that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> click.Command:
    """The real command line, which reads its words and goes no further."""
    for entry in below(viaduct):
        monkeypatch.setattr(entry, "callback", None)
    return viaduct


def test_every_documented_command_is_understood(
    documents: list[Path], that_does_nothing: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for page in documents for line in commands(page)]
    for word in (word for line in lines for word in line if word.endswith((".toml", ".pem"))):
        (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / word).touch()
    runs = {shlex.join(line): CliRunner().invoke(that_does_nothing, line) for line in lines}
    assert {line: run.output for line, run in runs.items() if run.exit_code != 0} == {}


def test_the_readme_shows_a_migration_by_hand(root: Path) -> None:
    shown = {word for line in commands(root / "README.md") for word in line[:2]}
    assert {"pki", "init", "issue", "machine", "create", "preflight", "migrate", "watch", "destroy"} <= shown


def test_the_files_that_the_readme_writes_are_good(root: Path, tmp_path: Path) -> None:
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", (root / "README.md").read_text(), re.MULTILINE | re.DOTALL))
    subprocess.run(["/bin/sh", "-eu", "-c", script], cwd=tmp_path, check=True)
    assert load_specification(tmp_path / "qat-guest.toml").name == "qat-guest"
    for who in ("host-a", "host-b"):
        agent = load(tmp_path / f"{who}.toml", {}).agent
        assert agent is not None
        assert agent.host == who
    assert set(load(tmp_path / "me.toml", {}).host) == {"host-a", "host-b"}
