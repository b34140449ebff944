"""A daemon as its service manager sees it: ready line, sd_notify, signals, exit codes."""

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_migration.daemon.life import report_error
from vm_migration.daemon.service_manager import watched_for
from vm_migration.errors import (
    AttemptFailed,
    Cancelled,
    InternalError,
    InvalidInput,
    MachineLost,
    MigrationError,
    Refused,
    Unresolved,
)
from vmm.assembly.document_faults import Fault, InvalidDocument

DEADLINE = 20.0
PROGRAM = """
import asyncio, sys, time
from vm_migration.daemon.life import run
from vm_migration.errors import Refused

async def hanging(life):
    life.ready()
    await life.stopped()
    time.sleep(600)

async def good(life):
    life.ready(address="127.0.0.1:7001")
    await life.stopped()

async def stubborn(life):
    life.ready()
    await life.stopped()
    await asyncio.Event().wait()

async def refused(life):
    async with asyncio.TaskGroup():
        raise Refused("address-in-use", "Another process listens on 127.0.0.1:7001", "Stop it")

async def broken(life):
    raise KeyError("the password is swordfish")

sys.exit(run("viaduct-test", globals()[sys.argv[1]], stop_deadline=float(sys.argv[2])))
"""


class Daemon:
    """One run of the program above."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ready(self) -> dict[str, object]:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            document: dict[str, object] = json.loads(await self.process.stdout.readline())
        return document

    async def end(self) -> tuple[int, list[str], str]:
        async with asyncio.timeout(DEADLINE):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, err.decode().splitlines(), out.decode()


async def start(body: str, stop_deadline: float = 10.0, environment: dict[str, str] | None = None) -> Daemon:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-c", PROGRAM, body, str(stop_deadline)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env=environment,
    )
    return Daemon(process)


def our_own(lines: Sequence[str]) -> list[str]:
    """Return lines without those that `-X dev` writes where this machine is busy with other things."""
    return [line for line in lines if "Executing <" not in line]


def events(lines: Sequence[str]) -> list[str]:
    """Return what was logged."""
    return [json.loads(line)["event"] for line in our_own(lines)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_when_it_serves_and_stops_in_good_order(number: signal.Signals) -> None:
    daemon = await start("good")
    ready = await daemon.ready()
    assert ready == {
        "event": "ready",
        "process": "viaduct-test",
        "pid": daemon.process.pid,
        "address": "127.0.0.1:7001",
    }
    daemon.process.send_signal(number)
    code, log, rest = await daemon.end()
    assert (code, events(log), rest) == (0, ["ready", "stopping", "stopped"], "")


@contextlib.contextmanager
def listening(place: str) -> Iterator[socket.socket]:
    """Yield the service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place.replace("@", "\0"))
        manager.settimeout(DEADLINE)
        yield manager


@pytest.mark.parametrize("abstract", [False, True])
async def test_the_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    place = f"@viaduct-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listening(place) as manager:
        daemon = await start("good", environment={"NOTIFY_SOCKET": place})
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1\nSTATUS=Serves: address 127.0.0.1:7001"
        daemon.process.terminate()
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1\nSTATUS=Stops"
        code, log, _ = await daemon.end()
    assert (code, events(log)) == (0, ["ready", "stopping", "stopped"])


async def test_the_service_manager_hears_twice_in_its_time_that_the_event_loop_runs(tmp_path: Path) -> None:
    place = str(tmp_path / "notify")
    with listening(place) as manager:
        started = time.monotonic()
        daemon = await start("good", environment={"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "400000"})
        heard = [await asyncio.to_thread(manager.recv, 100) for _ in range(6)]
        assert time.monotonic() - started >= 4 * 0.2  # the first of five is at once
        assert (heard.count(b"WATCHDOG=1"), len(heard)) == (5, 6)
        daemon.process.terminate()
        assert (await daemon.end())[0] == 0


async def test_an_event_loop_that_hangs_says_nothing_and_its_stack_is_shown_when_it_is_ended(tmp_path: Path) -> None:
    place = str(tmp_path / "notify")
    with listening(place) as manager:
        environment = {"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "200000"}
        daemon = await start("hanging", environment=environment)
        while await asyncio.to_thread(manager.recv, 100) != b"WATCHDOG=1":
            pass
        await daemon.ready()
        daemon.process.terminate()
        while not (await asyncio.to_thread(manager.recv, 100)).startswith(b"STOPPING=1"):
            pass
        manager.settimeout(1.0)
        late: list[bytes] = []
        with contextlib.suppress(TimeoutError):  # ten times as long as it may be silent
            while len(late) < 2:
                late.append(await asyncio.to_thread(manager.recv, 100))
        assert late in ([], [b"WATCHDOG=1"])  # one may have been due with the signal
        daemon.process.send_signal(signal.SIGABRT)
        code, log, _ = await daemon.end()
    assert code == -signal.SIGABRT
    assert any("in hanging" in line for line in log)


@given(st.text(max_size=12) | st.integers(-5, 1 << 40).map(str), st.sampled_from(["", "41", "42"]))
def test_only_what_is_meant_for_this_process_makes_it_show_its_life(text: str, meant_for: str) -> None:
    environment = {"WATCHDOG_USEC": text} | ({"WATCHDOG_PID": meant_for} if meant_for else {})
    seconds = watched_for(environment, 42)
    usable = text.isascii() and text.isdecimal() and int(text) > 0
    assert seconds == (int(text) / 1e6 if usable and meant_for != "41" else None)


def test_where_nobody_watches_nothing_is_shown() -> None:
    assert watched_for({}, 42) is None


async def test_one_that_does_not_stop_is_cut_off_and_says_so() -> None:
    daemon = await start("stubborn", stop_deadline=0.2)
    await daemon.ready()
    daemon.process.terminate()
    code, log, _ = await daemon.end()
    assert code == InternalError.exit_code
    assert "did not stop within 0.2 s" in log[-2]


async def test_a_second_signal_does_not_wait() -> None:
    daemon = await start("stubborn", stop_deadline=600)
    await daemon.ready()
    daemon.process.terminate()
    assert daemon.process.stderr is not None
    async with asyncio.timeout(DEADLINE):
        while b"stopping" not in await daemon.process.stderr.readline():
            pass
    daemon.process.terminate()
    code, _, _ = await daemon.end()
    assert code == 0


async def test_an_error_is_two_lines_and_its_exit_code() -> None:
    code, lines, _ = await (await start("refused")).end()
    assert code == Refused.exit_code
    assert our_own(lines) == ["error: Another process listens on 127.0.0.1:7001", "  fix: Stop it"]


async def test_a_fault_of_ours_shows_no_traceback() -> None:
    code, lines, _ = await (await start("broken")).end()
    assert code == InternalError.exit_code
    assert [json.loads(line)["error"] for line in our_own(lines[:-2])] == ["KeyError"]
    assert lines[-2] == "error: Internal error: KeyError"
    assert "--debug" in lines[-1]


async def test_a_service_manager_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    daemon = await start("good", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    await daemon.ready()
    daemon.process.terminate()
    code, log, _ = await daemon.end()
    assert code == 0
    assert "service manager not told" in events(log)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (InvalidInput, 2),
        (Refused, 3),
        (AttemptFailed, 4),
        (Cancelled, 5),
        (Unresolved, 6),
        (MachineLost, 7),
        (InternalError, 1),
    ],
)
def test_exit_codes_are_the_contract_s(kind: type[MigrationError], code: int) -> None:
    stream = io.StringIO()
    assert report_error(kind("code", "What happened", "What to do"), stream) == code
    assert stream.getvalue() == "error: What happened\n  fix: What to do\n"


def test_a_document_s_faults_are_all_shown() -> None:
    stream = io.StringIO()
    error = InvalidDocument([Fault("a.toml", "x", "Unknown key", "y"), Fault("a.toml", "z", "Wrong type", "text")])
    assert report_error(error, stream) == 2
    assert stream.getvalue().startswith("error: a.toml: 2 faults: ")
    assert stream.getvalue().count("\n") == 2
    assert "x: Unknown key (allowed: y)" in stream.getvalue()
