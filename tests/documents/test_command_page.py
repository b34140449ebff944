"""The page of commands names every command that is installed."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.command import viaduct

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()
CODE = re.findall(r"`([^`]+)`", PAGE)


def leaves(group: click.Group, path: str) -> Iterator[tuple[str, str]]:
    """Yield the line and the last word of every command below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", name


@pytest.mark.parametrize(("line", "word"), list(leaves(viaduct, "viaduct")), ids=lambda value: value.replace(" ", "-"))
def test_every_command_is_on_the_page(line: str, word: str) -> None:
    """In full, or as the short form that follows its group: `viaduct host list`, `show HOST`."""
    group = line.removesuffix(f" {word}")
    rows = [row for row in PAGE.splitlines() if f"`{group} " in row]
    assert any(code.startswith(line) for code in CODE) or any(f"`{word}" in row for row in rows)
