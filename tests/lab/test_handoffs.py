"""The hook that stops between the last page and the handoff, as a destination agent runs it."""

import asyncio
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.through_agents.handoffs import hooks_text, watching


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="viaduct lab-") as name:  # with a space, which the command must quote
        yield Path(name)


async def knocked(folder: Path, machine: str) -> int:
    """Run the hook as an agent does: by a shell, with the attempt in its environment."""
    (command,) = tomllib.loads(hooks_text(folder))["hooks"]["before_ready"]
    process = await asyncio.create_subprocess_shell(
        command,
        env={**os.environ, "VIADUCT_MACHINE": machine, "VIADUCT_ATTEMPT": "attempt"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def test_what_was_seen_is_kept_by_machine(folder: Path) -> None:
    looked: list[str] = []

    def look(machine: str) -> frozenset[int]:
        looked.append(machine)
        return frozenset({len(looked)})

    async with watching(folder, look) as handoffs:
        codes = [await knocked(folder, machine) for machine in ("one", "other")]
    assert (codes, looked) == ([0, 0], ["one", "other"])
    assert handoffs.seen == {"one": {1}, "other": {2}}
    assert handoffs.failures == {}


async def test_a_look_that_fails_fails_the_hook_and_so_the_attempt(folder: Path) -> None:
    def look(machine: str) -> frozenset[int]:
        raise ValueError(f"{machine} cannot be seen")

    async with watching(folder, look) as handoffs:
        assert await knocked(folder, "one") == 1
        assert (handoffs.seen, handoffs.failures) == ({}, {"one": "one cannot be seen"})


async def test_a_lab_that_is_gone_fails_the_hook(folder: Path) -> None:
    async with watching(folder, lambda _machine: frozenset()):
        pass
    assert await knocked(folder, "one") != 0


def test_the_hook_starts_a_bare_interpreter(folder: Path) -> None:
    """The standstill is longer by its start: no site packages, nothing of ours is imported."""
    assert f"{sys.executable} -I -S " in hooks_text(folder)
