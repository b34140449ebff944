"""Processes that the demo starts and ends: the agents and the orchestrator, each with its log in the demo's folder.

A daemon says that it is ready over NOTIFY_SOCKET (sd_notify); the demo listens there. At the end every process that
still knows the demo's folder is ended, so that a machine whose agent died leaves neither process nor memory.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from vm_migration.errors import InternalError

READY_SECONDS: Final = 20.0
STOP_SECONDS: Final = 8.0
_END_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process to start."""

    name: str
    command: Sequence[str]


def program(name: str) -> str:
    """Return the path of one of our programs: beside this interpreter, or on PATH.

    Raises:
        InternalError: It is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise InternalError("not-installed", f"{name} is not installed", "Install the project: make demo")
    return found


@contextlib.asynccontextmanager
async def running(folder: Path, daemons: Sequence[Daemon]) -> AsyncIterator[None]:
    """Run daemons; entered when all are ready, and left when all are gone, with everything that they started.

    Raises:
        InternalError: One ended, or was not ready in time; its last words are in the message.
    """
    processes: list[asyncio.subprocess.Process] = []
    try:
        async with asyncio.TaskGroup() as group:
            for daemon in daemons:
                group.create_task(_start(folder, daemon, processes), name=f"start {daemon.name}")
        yield
    finally:
        await asyncio.shield(_stop(folder, processes))


async def _start(folder: Path, daemon: Daemon, processes: list[asyncio.subprocess.Process]) -> None:
    log = folder / f"{daemon.name}.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notify:
        address = folder / f"{daemon.name}.notify"
        notify.bind(str(address))
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *daemon.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(os.environ, address),
                start_new_session=True,  # a Ctrl-C at the terminal is the demo's to handle
            )
        processes.append(process)
        try:
            async with asyncio.timeout(READY_SECONDS):
                await _ready_or_gone(process, notify)
        except TimeoutError:
            raise _failed(daemon, log, f"was not ready within {READY_SECONDS:.0f} s") from None
    if process.returncode is not None:
        raise _failed(daemon, log, f"ended with {process.returncode} before it was ready")


async def _ready_or_gone(process: asyncio.subprocess.Process, notify: socket.socket) -> None:
    gone = asyncio.create_task(process.wait(), name=f"end of {process.pid}")
    ready = asyncio.create_task(_ready(notify), name=f"readiness of {process.pid}")
    try:
        await asyncio.wait({gone, ready}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        ready.cancel()
        await asyncio.wait({gone, ready})


async def _ready(notify: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while b"READY=1" not in (await loop.sock_recv(notify, 4096)).split(b"\n"):
        pass


async def _stop(folder: Path, processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.gather(*(process.wait() for process in processes))
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await asyncio.to_thread(end_leftovers, folder)


def end_leftovers(folder: Path) -> list[str]:
    """End every process but this one that knows the folder; return their names."""
    found = [process for process in psutil.process_iter(["name", "cmdline", "environ"]) if _knows(process, folder)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(found, timeout=_END_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=_END_SECONDS)
    return [str(process.info["name"]) for process in found]


def _knows(process: psutil.Process, folder: Path) -> bool:
    if process.pid == os.getpid():
        return False
    words = [*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values()]
    return any(str(folder) in str(word) for word in words)


def _environment(own: Mapping[str, str], notify: Path) -> dict[str, str]:
    kept = {name: value for name, value in own.items() if not name.startswith("VIADUCT_")}
    return {**kept, "NOTIFY_SOCKET": str(notify)}


def _failed(daemon: Daemon, log: Path, how: str) -> InternalError:
    words = log.read_text(errors="replace").strip().splitlines()[-2:]
    return InternalError("daemon-failed", f"{daemon.name} {how}: {' '.join(words)}", "Run it again with --debug")
