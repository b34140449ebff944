"""The site of deploy/compose.yaml on a real engine: commanded from the operator's container, and hurt."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tests.deployment.engine import Engine

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PROJECT: Final = "viaduct-deploy-test"
HOSTS: Final = ("host-a", "host-b", "host-c")
ORCHESTRATORS: Final = ("orchestrator-1", "orchestrator-2")
CONTROL, MIGRATION = "10.231.101", "10.231.102"
"""Networks that a site somebody runs on the same engine does not have."""
_WAIT_SECONDS: Final = 60.0
_COMMAND_SECONDS: Final = 90.0


class _Attempt(msgspec.Struct):
    attempt: str
    driver: str


class _Attempts(msgspec.Struct):
    attempts: list[_Attempt]


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

    def compose(self, *arguments: str) -> str:
        """Run Compose on deploy/compose.yaml."""
        command = (*self.program, "--project-name", PROJECT, "--file", str(ROOT / "deploy/compose.yaml"), *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env=dict(self.environment)
        )
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def container(self, service: str) -> str:
        """Return the name that Compose gives a service's container."""
        return f"{PROJECT}-{service}-1"

    def up(self, *services: str) -> None:
        """Start services, all where none is named; they are healthy when this returns."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *services)

    def inside(self, service: str, *command: str, stdin: str = "") -> str:
        """Run a command in a service's container."""
        return self.engine.docker("exec", "--interactive", self.container(service), *command, stdin=stdin, seconds=90)

    def act(self, verb: str, service: str) -> None:
        """Have the engine kill, stop, start, pause or unpause a service's container."""
        self.engine.docker(verb, self.container(service))

    def disconnect(self, service: str, network: str) -> None:
        """Take a container out of a network; what was connected through it hears nothing."""
        self.engine.docker("network", "disconnect", f"{PROJECT}_{network}", self.container(service))

    def connect(self, host: str, network: str) -> None:
        """Put a host into a network, at the address that it had there."""
        address = f"{MIGRATION if network == 'migration' else CONTROL}.{HOSTS.index(host) + 11}"
        self.engine.docker("network", "connect", "--ip", address, f"{PROJECT}_{network}", self.container(host))

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
        (found,) = [service for service in ORCHESTRATORS if service in self._last_attempt().driver]
        return found

    def cancel(self) -> None:
        """Cancel what was begun last, if it has not ended by itself."""
        cancelled = self.viaduct("cancel", self._last_attempt().attempt)
        assert cancelled.exit_code == 0 or "nothing to cancel" in cancelled.err, cancelled.err

    def _last_attempt(self) -> _Attempt:
        listed = self.viaduct("list", "--all", "--json")
        assert listed.exit_code == 0, listed.err
        return msgspec.json.decode(listed.out, type=_Attempts).attempts[0]

    @contextlib.asynccontextmanager
    async def typing(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command beside the test; what it says is one stream."""
        process = await asyncio.create_subprocess_exec(
            "docker",
            *self._typed(arguments),
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
                found[host] = machines
        return found

    def alone_at(self, host: str, machine: str) -> None:
        """Wait until a machine has a process on one host and on no other; a copy that is given up needs its time."""
        until = time.monotonic() + _WAIT_SECONDS
        while (found := self.machine_processes()) != {host: [machine]}:
            assert time.monotonic() < until, f"{machine} should be alone at {host}: {found}"
            time.sleep(0.2)  # /proc has no event for it


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
