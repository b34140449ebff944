"""A daemon as its service manager sees it: ready line, sd_notify, signals, exit codes."""

import asyncio
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vm_migration.daemon.life import report_error
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
import asyncio, sys
from vm_migration.daemon.life import run
from vm_migration.errors import Refused

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


def events(lines: Sequence[str]) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


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


@pytest.mark.parametrize("abstract", [False, True])
async def test_the_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    place = f"@viaduct-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place.replace("@", "\0"))
        manager.settimeout(DEADLINE)
        daemon = await start("good", environment={"NOTIFY_SOCKET": place})
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        daemon.process.terminate()
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"
        code, log, _ = await daemon.end()
    assert (code, events(log)) == (0, ["ready", "stopping", "stopped"])


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
    assert lines == ["error: Another process listens on 127.0.0.1:7001", "  fix: Stop it"]


async def test_a_fault_of_ours_shows_no_traceback() -> None:
    code, lines, _ = await (await start("broken")).end()
    assert code == InternalError.exit_code
    assert [json.loads(line)["error"] for line in lines[:-2]] == ["KeyError"]
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
