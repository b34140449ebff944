"""A site's own commands around real migrations: each runs once, where it belongs, with what it needs to know."""

import contextlib
import json
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.system.attempts import machine, specification, works
from tests.system.command import viaduct
from tests.system.site import Site

NOTE = (
    "import os, pathlib, sys; "
    "told = [os.environ['VIADUCT_' + key] for key in ('HOOK', 'HOST', 'MACHINE', 'EPOCH', 'ATTEMPT')]; "
    "folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True); "
    "(folder / ' '.join([*told, str(os.getpid())])).touch(); "
    "sys.exit(int(sys.argv[2]))"
)
POINTS = ("before_prepare", "before_handoff", "before_ready", "after_active", "after_abort")


def hooks(folder: Path, failing: str = "") -> str:
    lines = []
    for point in POINTS:
        command = [sys.executable, "-c", NOTE, str(folder), "1" if point == failing else "0"]
        lines.append(f"{point} = [{json.dumps(shlex.join(command))}]\n")
    return "[hooks]\n" + "".join(lines)


@contextlib.asynccontextmanager
async def site_with(make: Callable[[Path], str]) -> AsyncIterator[tuple[Site, Path]]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        noted = Path(name) / "noted"
        site = Site(Path(name), {"host-a": "256MiB", "host-b": "256MiB"}, hooks=make(noted))
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site, noted


def ran(noted: Path) -> list[tuple[str, str]]:
    """Return each hook that ran, and the host that it was told."""
    found = [path.name.split(" ") for path in noted.iterdir()] if noted.is_dir() else []
    return sorted((words[0], words[1]) for words in found)


async def test_each_hook_of_a_completed_migration_runs_once_and_knows_its_host() -> None:
    async with site_with(hooks) as (site, noted), site.agents() as agents:
        async with machine(site, agents, specification("hooked")) as created:
            await works(site, "host-a", created.machine)
            moved = await viaduct(site, "migrate", "hooked", "--to", "host-b", "--downtime-limit", "2s", "--json")
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            await works(site, "host-b", created.machine)
        site.dest("host-b").stop()  # the hook after ACTIVE has ended when its agent has
        assert ran(noted) == [
            ("after_active", "host-b"),
            ("before_handoff", "host-a"),
            ("before_prepare", "host-a"),
            ("before_ready", "host-b"),
        ]
        told = {tuple(path.name.split(" ")[2:5]) for path in noted.iterdir()}
        assert told == {(created.machine, "2", str(moved.document["attempt"]))}


@pytest.mark.parametrize("point", ["before_handoff", "before_ready"])
async def test_a_failing_hook_around_the_stop_aborts_and_the_machine_goes_on(point: str) -> None:
    async with site_with(lambda folder: hooks(folder, point)) as (site, noted), site.agents() as agents:
        async with machine(site, agents, specification("refused")) as created:
            done = await works(site, "host-a", created.machine)
            moved = await viaduct(site, "migrate", "refused", "--to", "host-b", "--downtime-limit", "2s", "--json")
            assert (moved.exit_code, moved.document["outcome"]) == (4, "failed"), moved.err
            error = moved.document["error"]
            assert isinstance(error, dict)
            assert error["code"] == "hook-failed"
            await works(site, "host-a", created.machine, done)
            assert site.states("host-a", created.machine)[-1] == "ABORTED"
        stopped = [("before_ready", "host-b")] if point == "before_ready" else []
        assert ran(noted) == [
            ("after_abort", "host-a"),
            ("before_handoff", "host-a"),
            ("before_prepare", "host-a"),
            *stopped,
        ]


async def test_a_failing_hook_before_prepare_aborts_and_nothing_is_prepared() -> None:
    async with site_with(lambda folder: hooks(folder, "before_prepare")) as (site, noted), site.agents() as agents:
        async with machine(site, agents, specification("unprepared")) as created:
            await works(site, "host-a", created.machine)
            moved = await viaduct(site, "migrate", "unprepared", "--to", "host-b", "--downtime-limit", "2s", "--json")
            assert (moved.exit_code, moved.document["outcome"]) == (4, "failed"), moved.err
            assert site.record("host-b", created.machine) is None
            await works(site, "host-a", created.machine)
        assert ran(noted) == [("after_abort", "host-a"), ("before_prepare", "host-a")]
