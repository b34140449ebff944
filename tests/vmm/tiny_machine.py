"""A machine of one vCPU and no device, without a host process: enough for whoever commands machines."""

from collections.abc import Iterator
from contextlib import contextmanager

from vmm.assembly.machine import Machine
from vmm.assembly.specification import check_specification
from vmm.memory.ram_block import RamBlock
from vmm.process.commands import Commands
from vmm.process.identity import Identity, boot_id
from vmm.vfio.host_port import OpenObject

SIZE = 64 << 20


class HostWithoutDevices:
    """Implements `vmm.vfio.host_port.HostPort`."""

    def open(self, path: str) -> OpenObject:
        raise AssertionError(f"Nobody opens {path}")

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        pass

    def report_writes(self) -> bytes | None:
        return None


@contextmanager
def tiny_commands(*, incoming: bool = False, pid: int = 1) -> Iterator[Commands]:
    """Yield the commands of a machine, which runs unless it is incoming."""
    specification = check_specification(
        {
            "name": "tiny",
            "memory": {"size": "64MiB"},
            "viommu": {"model": "none"},
            "guest": {"working_set": "1MiB", "cpu_dirty_rate": "1MiB/s"},
        },
        "tiny",
    )
    block = RamBlock.create("tiny", SIZE)
    machine = Machine(specification, block, HostWithoutDevices())
    if not incoming:
        machine.boot()
        machine.start()
    identity = Identity(machine="0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01", boot_id=boot_id(), pid=pid, instance="t")
    try:
        yield Commands(machine, identity, incoming=incoming)
    finally:
        block.close()
