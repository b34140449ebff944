"""A site's own commands around real migrations: each runs once, where it belongs, with what it needs to know."""

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.system.attempts import machine, specification, works
from tests.system.command import viaduct
from tests.system.site import Site

NOTE = (
    "import os, pathlib, sys; "
    "told = [os.environ['VIADUCT_' + key] for key in ('HOOK', 'HOST', 'MACHINE', 'EPOCH', 'ATTEMPT')]; "
    "folder = pathlib.Path(sys.argv[1]); "
    "(folder / 'noted' / ' '.join([*told, str(os.getpid())])).touch(); "
    "sys.exit((folder / 'failing' / told[0]).exists())"
)
POINTS = ("before_prepare", "before_handoff", "before_ready", "after_active", "after_abort")


@pytest.fixture(scope="module")
def hooks() -> Iterator[Path]:
    """The folder in which a hook notes that it ran, and looks whether it is to fail."""
    with tempfile.TemporaryDirectory(prefix="hooks-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shared_site(hooks: Path) -> Iterator[Site]:
    command = json.dumps(shlex.join([sys.executable, "-c", NOTE, str(hooks)]))
    sections = "[hooks]\n" + "".join(f"{point} = [{command}]\n" for point in POINTS)
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        site = Site(Path(name), {"host-a": "256MiB", "host-b": "256MiB"}, hooks=sections)
        with contextlib.closing(site):
            yield site


@pytest.fixture
def failing(hooks: Path) -> Iterator[Path]:
    """Where a hook is named that is to fail; none is, and none has run yet."""
    for name in ("noted", "failing"):
        (hooks / name).mkdir()
    yield hooks / "failing"
    for name in ("noted", "failing"):
        shutil.rmtree(hooks / name)


@pytest.fixture
def noted(failing: Path) -> Path:
    """Where it is noted which hooks ran."""
    return failing.with_name("noted")


def notes(noted: Path) -> list[list[str]]:
    """Return what each hook that ran was told, in words."""
    return [path.name.split(" ") for path in noted.iterdir()]


def ran(noted: Path) -> list[tuple[str, str]]:
    """Return each hook that ran, and the host that it was told."""
    return sorted((words[0], words[1]) for words in notes(noted))


async def test_each_hook_of_a_completed_migration_runs_once_and_knows_its_host(
    site: Site, agents: Agents, noted: Path
) -> None:
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
    told = {tuple(words[2:5]) for words in notes(noted)}
    assert told == {(created.machine, "2", str(moved.document["attempt"]))}


@pytest.mark.parametrize("point", ["before_handoff", "before_ready"])
async def test_a_failing_hook_around_the_stop_aborts_and_the_machine_goes_on(
    site: Site, agents: Agents, noted: Path, failing: Path, point: str
) -> None:
    (failing / point).touch()
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


async def test_a_failing_hook_before_prepare_aborts_and_nothing_is_prepared(
    site: Site, agents: Agents, noted: Path, failing: Path
) -> None:
    (failing / "before_prepare").touch()
    async with machine(site, agents, specification("unprepared")) as created:
        await works(site, "host-a", created.machine)
        moved = await viaduct(site, "migrate", "unprepared", "--to", "host-b", "--downtime-limit", "2s", "--json")
        assert (moved.exit_code, moved.document["outcome"]) == (4, "failed"), moved.err
        assert site.record("host-b", created.machine) is None
        await works(site, "host-a", created.machine)
    assert ran(noted) == [("after_abort", "host-a"), ("before_prepare", "host-a")]
