"""Who starts a machine's processes: the agent itself, or the service manager, in a unit of their own.

Either way they get the same descriptors, outlive the agent, and end by themselves where it goes before it said "keep"
(vm_migration.machine.launch). Without a service manager each is a session of its own. With one that is not enough: it
ends what belongs to the agent's unit, and counts it to the agent's bounds.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Protocol

from vm_migration.machine.unit_process import ENVIRONMENT, request_bytes

_DEADLINE: Final = 20.0
_PID_BYTES: Final = 32

Descriptors = tuple[int, int, int]
"""What becomes stdin, stdout and stderr."""


class Starter(Protocol):
    """Starts one of a machine's processes; the caller closes its own copies of the descriptors."""

    async def start(self, module: str, arguments: list[str], descriptors: Descriptors) -> int:
        """Return the pid of what runs a module, or is about to.

        Raises:
            OSError: It was not started, or it is not known whether; then it ends with its descriptors.
        """


class OwnSession:
    """Implements `Starter`: a child of this process that no signal to its terminal reaches."""

    async def start(self, module: str, arguments: list[str], descriptors: Descriptors) -> int:
        """Start it at once."""
        stdin, stdout, stderr = descriptors
        process = subprocess.Popen(  # noqa: ASYNC220 - milliseconds, and nobody may come between it and its claim
            [sys.executable, "-m", module, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        # It outlives this loop, so whoever reaps it is bound to none.
        threading.Thread(target=process.wait, name=f"end of {process.pid}", daemon=True).start()
        return process.pid


class OwnUnit:
    """Implements `Starter`: asks the service manager through a socket of which every connection is a unit."""

    def __init__(self, manager: Path) -> None:
        self._manager: Final = manager

    async def start(self, module: str, arguments: list[str], descriptors: Descriptors) -> int:
        """Connect, hand over what it is to run with, and wait for its pid."""
        loop = asyncio.get_running_loop()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as unit:
                async with asyncio.timeout(_DEADLINE):
                    await loop.sock_connect(unit, str(self._manager))
                    socket.send_fds(unit, [request_bytes(module, arguments)], list(descriptors))
                    answer = await loop.sock_recv(unit, _PID_BYTES)
        except OSError as error:  # a deadline that is over is one too
            look = "look at `systemctl status viaduct-machine.socket`"
            raise OSError(f"No unit for {module} through {self._manager}: {error!r}; {look}") from error
        if not answer.isdigit():
            raise OSError(f"The unit for {module} ended at once: look at `journalctl -u 'viaduct-machine@*'`")
        return int(answer)
