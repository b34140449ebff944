"""Hooks: real commands, their environment, their deadline, and nothing of them left."""

import asyncio
import os
import select
import sys
import time
from pathlib import Path

import pytest

from vm_migration.daemon.hooks import HookContext, HookPoint, HookReport, run_hooks
from vm_migration.errors import AttemptFailed, Refused

CONTEXT = HookContext(attempt="attempt-1", machine="machine-1", epoch=7, host="host-a")
AFTER = HookPoint.AFTER_ACTIVE


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def ends(pid: int) -> bool:
    """Return whether a process that was killed is gone; its descriptor becomes readable then (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 5.0)[0])
    finally:
        os.close(descriptor)


async def run(point: HookPoint, *commands: tuple[str, ...], deadline: float = 20.0) -> tuple[HookReport, ...]:
    return await run_hooks(point, commands, CONTEXT, deadline)


async def test_a_command_is_told_what_it_is_about() -> None:
    show = script("import os; print(*(os.environ['VIADUCT_' + n] for n in 'HOOK ATTEMPT MACHINE EPOCH HOST'.split()))")
    [report] = await run(AFTER, show)
    assert report.ok
    assert report.output == "after_active attempt-1 machine-1 7 host-a\n"


async def test_it_has_no_input_and_no_shell() -> None:
    [report] = await run(AFTER, (*script("import sys; print(repr(sys.stdin.read()), sys.argv[1:])"), "$HOME;", "*"))
    assert report.output == "'' ['$HOME;', '*']\n"


@pytest.mark.parametrize(
    ("point", "error"), [(HookPoint.BEFORE_PREPARE, Refused), (HookPoint.BEFORE_HANDOFF, AttemptFailed)]
)
async def test_a_before_that_fails_stops_everything(
    tmp_path: Path, point: HookPoint, error: type[Refused] | type[AttemptFailed]
) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(error) as caught:
        await run(point, script("raise SystemExit('no room')"), script(f"open({str(mark)!r}, 'w')"))
    assert caught.value.code == "hook-failed"
    assert "exited with 1: no room" in caught.value.message
    assert not mark.exists()


@pytest.mark.parametrize("point", [HookPoint.AFTER_ACTIVE, HookPoint.AFTER_ABORT])
async def test_an_after_that_fails_is_reported_and_the_next_one_runs(point: HookPoint) -> None:
    reports = await run(point, script("raise SystemExit(3)"), ("/no/such/command",), script("print('done')"))
    assert [report.ok for report in reports] == [False, False, True]
    assert [report.exit_code for report in reports] == [3, None, 0]
    assert str(reports[1]) == "Hook /no/such/command did not start: No such file or directory"


async def test_at_the_deadline_its_whole_group_ends(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = (
        "import os, pathlib, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('waiting', flush=True)\n"
        "signal.pause()\n"
    )
    start = time.monotonic()
    [report] = await run(AFTER, script(text), deadline=5.0)
    assert time.monotonic() - start < 15
    assert report.timed_out
    assert not report.ok
    assert report.output == "waiting\n"
    assert "did not end within" in str(report)
    for pid in map(int, pids.read_text().split()):
        assert ends(pid)


async def test_what_it_leaves_in_the_background_ends_with_it_and_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    text = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(str(child.pid))\n"
    )
    [report] = await run(AFTER, script(text))
    assert report.ok
    pid = int(pids.read_text())
    assert ends(pid)


async def test_when_cancelled_nothing_is_left(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    text = f"import os, signal; print(os.getpid(), file=open({str(fifo)!r}, 'w'), flush=True); signal.pause()"
    task = asyncio.create_task(run(AFTER, script(text)))
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends(pid)


async def test_only_the_last_of_much_output_is_kept() -> None:
    [report] = await run(AFTER, script("print('x' * 1_000_000); print('end')"))
    assert report.output.endswith("x\nend\n")
    assert len(report.output) == 2000
