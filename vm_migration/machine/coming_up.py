"""One of a machine's processes on its way up: the pipes that lead to it, and what it says on them.

Without "go" it opens nothing, and without "keep" it ends when whoever started it is gone. On its stdout it says, a JSON
line each, how far it is.
"""

import asyncio
import contextlib
import json
import os
import select
import time
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final

from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.run_directory import MachineDirectory, ProcessId, identify
from vm_migration.machine.starting import Starter

_LOGS: Final = {
    "vfio_host.process.main": "vfio-host.log",
    "vmm.process.main": "vmm.log",
    "vm_migration.machine.qemu.shim": "qemu-shim.log",
}


@dataclass(frozen=True, slots=True)
class ComingUp:
    """A process that is on its way up."""

    module: str
    id: ProcessId
    stdin: FileIO
    stdout: FileIO
    log: Path
    heard: bytearray = field(default_factory=bytearray)
    """What it has written and nobody has waited for yet."""

    def let_go(self) -> None:
        """Let a machine process that holds go on; without this word, and when this process is killed, it ends."""
        self._tell(b"go\n")

    def keep(self) -> None:
        """Have it outlive this process from here on."""
        self._tell(b"keep\n")
        self.close()

    def _tell(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: `says` says so, or whoever looks at it next
            self.stdin.write(word)

    def close(self) -> None:
        """Close what leads to it."""
        self.stdin.close()
        self.stdout.close()

    async def says(self, event: str, deadline: float) -> dict[str, object]:
        """Wait for its next line, which is to say that event, and return it.

        Raises:
            LaunchFailed: It ended instead, said something else, or took more seconds than that.
        """
        try:
            line = await asyncio.to_thread(_next_line, self.stdout, self.heard, time.monotonic() + deadline)
            said: object = json.loads(line) if line else None
        except (TimeoutError, ValueError) as error:
            raise LaunchFailed(f"{self.module} did not become {event}: {error!r}{_tail(self.log)}") from error
        if not isinstance(said, dict) or said.get("event") != event:
            raise LaunchFailed(f"{self.module} ended before it was {event}{_tail(self.log)}")
        return said


async def start(
    starter: Starter, module: str, arguments: list[str], directory: MachineDirectory, started: list[ComingUp]
) -> ComingUp:
    """Start a process of a machine and note it among those that were started.

    Raises:
        OSError: It was not started, or it is not known whether; then it ends with its descriptors.
    """
    log = directory.path / _LOGS[module]
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as given:
        its_stdin, stdin = _pipe(given, kept)
        stdout, its_stdout = _pipe(kept, given)
        errors = given.enter_context(log.open("ab"))
        pid = await starter.start(module, arguments, (its_stdin.fileno(), its_stdout.fileno(), errors.fileno()))
        started.append(ComingUp(module, identify(pid), stdin, stdout, log))
        kept.pop_all()
    return started[-1]


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    read, write = os.pipe()
    return reader.enter_context(FileIO(read, "r")), writer.enter_context(FileIO(write, "w"))


def _next_line(stdout: FileIO, heard: bytearray, until: float) -> bytes:
    """Return what a process writes next, or what it has written when it ends. TimeoutError past the deadline."""
    written = select.poll()
    written.register(stdout, select.POLLIN)
    while (end := heard.find(b"\n")) < 0:
        if not written.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        part = os.read(stdout.fileno(), 4096)
        if not part:
            end = len(heard) - 1
            break
        heard += part
    line = bytes(heard[: end + 1])
    del heard[: end + 1]
    return line


def _tail(log: Path) -> str:
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        return ""
    return f": {text[-500:]}" if text else ""
