"""A command line that cannot be read is told how to see what its own command accepts."""

import platform

import pytest

from orchestrator.command import run_here
from vm_migration.daemon.host_facts import VERSION


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["report", "ABC", "--html"], "viaduct report"),
        (["migrate", "guest", "--to"], "viaduct migrate"),
        (["migrate", "guest", "--nothing"], "viaduct migrate"),
        (["machine", "create", "guest.toml", "--host"], "viaduct machine create"),
        (["machine", "--host"], "viaduct machine"),
        (["machine", "levitate"], "viaduct machine"),
        (["pki", "issue", "me", "--role"], "viaduct pki issue"),
        (["host", "maintenance", "host-a"], "viaduct host maintenance"),
        (["tune", "ABC", "--max-bandwidth", "fast"], "viaduct tune"),
        (["levitate"], "viaduct"),
        (["--json", "report"], "viaduct"),
    ],
)
async def test_the_hint_names_the_command_that_was_asked_for(
    words: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_here(words) == 2
    assert capsys.readouterr().err.endswith(f"  fix: See what is accepted: {command} --help\n")


async def test_the_version_is_an_option_and_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["version"]):
        assert await run_here(words) == 0
        assert capsys.readouterr().out == f"viaduct {VERSION} (Python {platform.python_version()})\n"
