"""Hosts of a test whose machines are real QEMUs, and two of those between which one moves."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from uuid import UUID

from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.launch import end_process
from vm_migration.machine.port import MachinePort, Stop
from vm_migration.machine.run_directory import IN_SOCKET, Instance
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.process.own_stream import COMPLETED, GATE, StreamState, StreamTerms

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")
SECONDS = 60.0
QEMU = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64 is not installed"
_TERMS = StreamTerms()


@asynccontextmanager
async def host(name: str, *programs: str) -> AsyncIterator[tuple[SoftwareHypervisor, Path]]:
    """Yield a host's machines and its folder; nothing of them is left afterwards."""
    with TemporaryDirectory(prefix=f"viaduct-{name}-") as folder:
        hypervisor = SoftwareHypervisor(Path(folder), qemu=programs or [QEMU])
        try:
            yield hypervisor, Path(folder)
        finally:
            for place in list(hypervisor.all()):
                await hypervisor.take_away(place, None)


def specification(
    *arguments: str, size: str = "128MiB", table: Mapping[str, object] = MappingProxyType({})
) -> MachineSpecification:
    """Return a machine's specification; `table` says more of [qemu]."""
    qemu = {"arguments": ["-accel", "tcg", *arguments], **table}
    document = {"name": "web", "kind": "qemu", "memory": {"size": size}, "qemu": qemu}
    return check_specification(document, "the test's machine")


async def until(port: MachinePort, *wanted: str) -> StreamState:
    """Wait until a stream has one of these states."""
    async with asyncio.timeout(SECONDS):
        state = await port.stream()
        while state.status not in wanted:
            state = await port.stream(state.status, 1000)
        return state


@dataclass
class Pair:
    """A machine that leaves one host, and the one that it is to become at another; each has an owner's attention."""

    leaving: MachinePort
    arriving: MachinePort
    source: MachinePlace
    target: MachinePlace

    async def to_gate(self, terms: StreamTerms = _TERMS) -> StreamState:
        """Have it send itself through a socket, up to its gate."""
        way = str(self.target.path / IN_SOCKET)
        await self.arriving.accept_stream(way, terms)
        await self.leaving.start_stream(way, terms)
        gate = await until(self.leaving, GATE, "failed")
        assert (gate.status, gate.running) == (GATE, False), gate.error
        return gate

    async def through(self) -> Stop:
        """Have it go on from its gate until both ends say that all of it is there; return at which stop it stands."""
        stop = await self.leaving.pause(for_attempt=True)
        await self.leaving.continue_stream()
        for port in (self.leaving, self.arriving):
            ended = await until(port, COMPLETED, "failed")
            assert ended.status == COMPLETED, ended.error
        return stop

    async def taken_over(self, stop: Stop) -> None:
        """Have what has arrived run, once it was released."""
        await self.arriving.load(b"", stop.pause)
        await self.arriving.run(2)


@asynccontextmanager
async def launched(
    at: SoftwareHypervisor, wanted: MachineSpecification, *, incoming: bool
) -> AsyncIterator[tuple[MachinePlace, MachinePort]]:
    """Yield a machine that runs, or waits for a stream, and is commanded; it is taken away afterwards."""
    place = await at.launch(MACHINE, wanted, incoming=incoming)
    port = at.connect(place)
    try:
        await port.attach(2 if incoming else 1, 1)
        yield place, port
    finally:
        await port.close()
        await at.take_away(place, None)


@asynccontextmanager
async def pair(
    here: SoftwareHypervisor,
    there: SoftwareHypervisor,
    wanted: MachineSpecification,
    arrives: MachineSpecification | None = None,
) -> AsyncIterator[Pair]:
    """Yield a machine that runs at one host, and the one that waits for its stream at another."""
    async with (
        launched(here, wanted, incoming=False) as (source, leaving),
        launched(there, arrives or wanted, incoming=True) as (target, arriving),
    ):
        yield Pair(leaving, arriving, source, target)


def instance_of(place: MachinePlace) -> Instance:
    """Return which processes a machine is."""
    instance = place.instance()
    assert instance is not None
    return instance


async def lost(place: MachinePlace) -> None:
    """Kill what stands beside a QEMU, which lives on, and wait until it is gone."""
    instance = instance_of(place)
    os.kill(instance.host.pid, signal.SIGKILL)
    await end_process(instance.host, kill=False)
    assert place.alive()
