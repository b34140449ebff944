"""The site of deploy/compose.yaml on a real engine: commanded from the operator's container, and hurt."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from tools.deploy.client import Engine
from tools.deploy.ingredients import ROOT

PROJECT: Final = "viaduct-deploy-test"
HOSTS: Final = ("host-a", "host-b", "host-c")
ORCHESTRATORS: Final = ("orchestrator-1", "orchestrator-2")
CONTROL, MIGRATION = "10.231.101", "10.231.102"
"""Networks that a site somebody runs on the same engine does not have."""
OVERRIDES: Final = Path(__file__).parent / "overrides"
"""Files that change one service of deploy/compose.yaml each."""
_READY: Final = "until s6-svwait -t 60000 -U /run/viaduct/services/* 2> /dev/null; do sleep 0.1; done"
"""Ends when every daemon of a container serves; whether s6 is there yet, nothing tells."""
_WAIT_SECONDS: Final = 60.0
_COMMAND_SECONDS: Final = 90.0


class Attempt(msgspec.Struct):
    """An attempt as it is listed, as far as it matters here."""

    attempt: str
    machine: str
    epoch: int
    driver: str


class _Attempts(msgspec.Struct):
    attempts: list[Attempt]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    out: str
    err: str = ""


@dataclass(frozen=True)
class Deployment:
    """The site, on one engine."""

    engine: Engine
    program: Sequence[str]
    environment: Mapping[str, str]
    changed: set[str] = field(default_factory=set)
    """Services that are not as they are shipped."""

    def compose(self, *arguments: str, over: str = "") -> str:
        """Run Compose on deploy/compose.yaml, and on the override of that name."""
        paths = [ROOT / "deploy/compose.yaml", *([OVERRIDES / f"{over}.yaml"] if over else [])]
        files = [word for path in paths for word in ("--file", str(path))]
        command = (*self.program, "--project-name", PROJECT, *files, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env=dict(self.environment)
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def container(self, service: str) -> str:
        """Return the name that Compose gives a service's container."""
        return f"{PROJECT}-{service}-1"

    def up(self) -> None:
        """Start everything; it is healthy when this returns."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120")

    def replace(self, service: str, over: str = "") -> None:
        """Make a service's container anew, as an override says or as it is shipped; its daemons serve then."""
        self.changed.add(service)
        self.compose("up", "--detach", "--no-deps", "--timeout", "0", service, over=over)
        self.ready(service)
        if not over:
            self.changed.discard(service)

    def whole(self) -> None:
        """Have every service as it is shipped."""
        for service in sorted(self.changed):
            self.replace(service)

    def start(self, service: str) -> None:
        """Start a container that was killed or stopped; its daemons serve then."""
        self.act("start", service)
        self.ready(service)

    def ready(self, service: str) -> None:
        """Wait until a container's daemons serve."""
        self.inside(service, "sh", "-c", _READY)

    def inside(self, service: str, *command: str, stdin: str = "") -> str:
        """Run a command in a service's container."""
        return self.engine.docker("exec", "--interactive", self.container(service), *command, stdin=stdin, seconds=90)

    def act(self, verb: str, service: str) -> None:
        """Have the engine kill, stop, start, pause or unpause a service's container."""
        self.engine.docker(verb, self.container(service))

    def in_network_of(self, service: str, *command: str) -> str:
        """Run a program of the services' image in a container's network, as root there."""
        network = f"container:{self.container(service)}"
        privileges = ("--user", "0:0", "--cap-add", "NET_ADMIN", "--network", network)
        return self.engine.docker("run", "--rm", *privileges, self.environment["VIADUCT_SERVICES_IMAGE"], *command)

    # what a person types

    def viaduct(self, *arguments: str) -> Ended:
        """Run a command to its end in the operator's container."""
        done = self.engine.attempt(*self._typed(arguments), seconds=_COMMAND_SECONDS)
        return Ended(done.returncode, done.stdout, done.stderr)

    def leader(self) -> str:
        """Return the orchestrator that drives what was begun last."""
        return driven_by(self.attempts()[0])

    def cancel(self, attempt: str) -> None:
        """Cancel an attempt, if it has not ended by itself."""
        cancelled = self.viaduct("cancel", attempt)
        assert cancelled.exit_code == 0 or "nothing to cancel" in cancelled.err, cancelled.err

    def attempts(self, *, ended: bool = True) -> list[Attempt]:
        """Return what was begun, the last one first, with or without what has ended."""
        listed = self.viaduct("list", *(("--all",) if ended else ()), "--json")
        assert listed.exit_code == 0, listed.err
        return msgspec.json.decode(listed.out, type=_Attempts).attempts

    def typing(self, *arguments: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """Run a command beside the test; what it says is one stream."""
        return self._beside(*self._typed(arguments))

    def lines_of(self, service: str, file: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """Read a file's lines, and those that come, beside the test."""
        reading = ("timeout", str(_COMMAND_SECONDS), "tail", "--lines=+1", "--follow=name", file)
        return self._beside("exec", self.container(service), *reading)

    def logged_next(self, service: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """Read what a container logs from now on beside the test."""
        return self._beside("logs", "--follow", "--tail", "0", self.container(service))

    @contextlib.asynccontextmanager
    async def _beside(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.environment),
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    def _typed(self, arguments: Sequence[str]) -> tuple[str, ...]:
        return ("exec", self.container("operator"), "viaduct", *arguments)

    # where machines are

    def machine_processes(self) -> dict[str, list[str]]:
        """Return the machines that have a process, by the host that it is on, as /proc has them; paused hosts too."""
        found = {}
        for host in HOSTS:
            top = self.engine.attempt("top", self.container(host), "-eo", "pid,args")
            lines = [line.split() for line in top.stdout.splitlines() if "vmm.process.main" in line]
            if machines := [line[line.index("--machine") + 1] for line in lines]:
                found[host] = sorted(machines)
        return found

    def processes_are(self, expected: Mapping[str, Sequence[str]]) -> None:
        """Wait until machines have processes as expected, and none else; a copy that is given up needs its time."""
        until = time.monotonic() + _WAIT_SECONDS
        while (found := self.machine_processes()) != {host: sorted(machines) for host, machines in expected.items()}:
            assert time.monotonic() < until, f"Processes should be {expected}: {found}"
            time.sleep(0.2)  # /proc has no event for it


def driven_by(attempt: Attempt) -> str:
    """Return the orchestrator that drives an attempt, or has driven it."""
    (found,) = [service for service in ORCHESTRATORS if service in attempt.driver]
    return found


@contextlib.contextmanager
def paused(site: Deployment, service: str) -> Iterator[None]:
    """Have a container's processes stand still."""
    site.act("pause", service)
    try:
        yield
    finally:
        site.act("unpause", service)


@contextlib.contextmanager
def killed(site: Deployment, host: str) -> Iterator[None]:
    """Have a host's processes gone; its daemons serve again afterwards."""
    site.act("kill", host)
    try:
        yield
    finally:
        site.start(host)


@contextlib.contextmanager
def cut_off(site: Deployment, host: str, network: str) -> Iterator[None]:
    """Have a host out of a network, and back at the address that it had there; connections through it hear nothing."""
    place = (f"{PROJECT}_{network}", site.container(host))
    address = f"{MIGRATION if network == 'migration' else CONTROL}.{HOSTS.index(host) + 11}"
    site.engine.docker("network", "disconnect", *place)
    try:
        yield
    finally:
        site.engine.docker("network", "connect", "--ip", address, *place)


async def heard(process: asyncio.subprocess.Process, words: str) -> None:
    """Wait until a command has said some words."""
    assert process.stdout is not None
    said = []
    async with asyncio.timeout(_COMMAND_SECONDS):
        while line := await process.stdout.readline():
            said.append(line.decode())
            if words in said[-1]:
                return
    raise AssertionError(f"It ended without {words!r}: {''.join(said)}")


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a command's end."""
    async with asyncio.timeout(_COMMAND_SECONDS):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, said.decode())
