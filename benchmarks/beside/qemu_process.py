"""One QEMU, driven over QMP: started on a host of the path, asked, watched, ended by its own id."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from qemu.qmp import ConnectError, Message, QMPClient, QMPError

PROGRAM: Final = "qemu-system-x86_64"
_READY_SECONDS: Final = 120.0
"""Preallocating 8 GiB takes most of it."""
_ASK_SECONDS: Final = 30.0
_END_SECONDS: Final = 10.0
_POLL: Final = 0.01


class QemuFailed(Exception):
    """QEMU ended, refused, or did not answer; its own words are in the message."""


@dataclass(slots=True)
class Qemu:
    """A QEMU that answers. `ready_ms` is from its start to its first answer: preallocated memory is ready by then."""

    name: str
    process: asyncio.subprocess.Process
    client: QMPClient
    log: Path
    ready_ms: float

    async def ask(self, command: str, **arguments: object) -> object:
        """Give one QMP command and return its answer.

        Raises:
            QemuFailed: It refused, or has ended.
        """
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                return await self.client.execute(command, {key.replace("_", "-"): v for key, v in arguments.items()})
        except (QMPError, TimeoutError) as error:
            raise QemuFailed(f"{self.name}: {command}: {error!r}{_tail(self.log)}") from error

    async def asked(self, command: str) -> dict[str, object]:
        """Give a command that answers with an object.

        Raises:
            QemuFailed: As `ask`, or it answered with something else.
        """
        answer = await self.ask(command)
        if not isinstance(answer, dict):
            raise QemuFailed(f"{self.name}: {command} answered {answer!r}")
        return answer

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used, all threads, user and system."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextlib.asynccontextmanager
async def running(folder: Path, name: str, inside: Sequence[str], arguments: Sequence[str]) -> AsyncIterator[Qemu]:
    """Run a QEMU while the context is entered; nothing of it is left afterwards.

    Raises:
        QemuFailed: It ended, or did not answer in time.
        FileNotFoundError: It is not installed.
    """
    socket, log = folder / f"{name}.qmp", folder / f"{name}.log"
    socket.unlink(missing_ok=True)
    command = [*inside, PROGRAM, *arguments, "-qmp", f"unix:{socket},server=on,wait=off"]
    began = time.monotonic()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        client = await _connected(name, process, socket, log)
        try:
            yield Qemu(name, process, client, log, 1000 * (time.monotonic() - began))
        finally:
            with contextlib.suppress(QMPError, EOFError, TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await client.disconnect()
    finally:
        await _end(process)
        socket.unlink(missing_ok=True)


async def _connected(name: str, process: asyncio.subprocess.Process, socket: Path, log: Path) -> QMPClient:
    """Return a client that has been greeted and has had one answer: the main loop runs, the memory is there."""
    until = time.monotonic() + _READY_SECONDS
    while process.returncode is None and time.monotonic() < until:
        client = QMPClient(name)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await client.connect(str(socket))
                await client.execute("query-status")
        except ConnectError:
            await asyncio.sleep(_POLL)  # the socket has no event for its own coming
        except (QMPError, TimeoutError) as error:
            raise QemuFailed(f"{name} did not answer: {error!r}{_tail(log)}") from error
        else:
            return client
    raise QemuFailed(f"{name} ended, or was not ready in {_READY_SECONDS:.0f} s{_tail(log)}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def moment(event: Message) -> float:
    """Return when an event happened, in seconds of the clock that all processes of this machine share."""
    at = event["timestamp"]
    if not isinstance(at, dict):
        raise QemuFailed(f"An event without a time: {event}")
    return float(at["seconds"]) + float(at["microseconds"]) / 1e6


def _tail(log: Path) -> str:
    words = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    return f": {' '.join(words)}" if words else ""
