"""A host of a test whose machines are real QEMUs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from uuid import UUID

from vm_migration.machine.port import MachinePort
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.specification import MachineSpecification, check_specification
from vmm.process.own_stream import StreamState

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")
SECONDS = 60.0
QEMU = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64 is not installed"


@asynccontextmanager
async def host(name: str) -> AsyncIterator[tuple[SoftwareHypervisor, Path]]:
    """Yield a host's machines and its folder; nothing of them is left afterwards."""
    with TemporaryDirectory(prefix=f"viaduct-{name}-") as folder:
        hypervisor = SoftwareHypervisor(Path(folder), qemu=[QEMU])
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
