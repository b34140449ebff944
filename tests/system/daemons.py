"""Daemons of a test site: started until they say that they are ready, stopped or killed by their own id."""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 30.0
STOP_SECONDS = 20.0


@dataclass
class Daemon:
    """One daemon that can be started again; its log is kept over its lives."""

    name: str
    command: Sequence[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start, and return when the daemon says that it serves."""
        launch([self])

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_SECONDS)
            self.process = None


def launch(daemons: Sequence[Daemon], seconds: float = READY_SECONDS) -> None:
    """Start daemons side by side; all are ready when this returns, or none is left."""
    # A socket's path is short by law, a test's folder is not.
    with tempfile.TemporaryDirectory(prefix="ready-") as folder:
        waiting = [(daemon, _start(daemon, Path(folder) / daemon.name)) for daemon in daemons]
        try:
            for daemon, notify in waiting:
                _await_ready(daemon, notify, seconds)
        except BaseException:
            for daemon in daemons:
                daemon.kill()
            raise
        finally:
            for _, notify in waiting:
                notify.close()


def program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("VIADUCT_")}


def _start(daemon: Daemon, address: Path) -> socket.socket:
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(address))
    with (daemon.folder / f"{daemon.name}.log").open("ab") as log:
        daemon.process = subprocess.Popen(
            daemon.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment(), "NOTIFY_SOCKET": str(address)},
        )
    return notify


def _await_ready(daemon: Daemon, notify: socket.socket, seconds: float) -> None:
    """Wait for the daemon's word, or for its end."""
    life = os.pidfd_open(daemon.pid)
    try:
        poll = select.poll()
        for descriptor in (notify.fileno(), life):
            poll.register(descriptor, select.POLLIN)
        while (notify.fileno(), select.POLLIN) in poll.poll(seconds * 1000):
            if b"READY=1" in notify.recv(4096).split(b"\n"):
                return
    finally:
        os.close(life)
    raise AssertionError(f"{daemon.name} ended, or was not ready in time:\n{daemon.log[-2000:]}")
