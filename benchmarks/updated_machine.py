"""A machine that is handed from process to process on this host, without agents, while its accelerator works."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.rig import MIB
from tests.vmm.update.machine_processes import Controller, NewProcess, handed_over, started
from vm_migration.machine.launch import end_process, launch, take_away
from vm_migration.machine.run_directory import Instance, MachineDirectory, RunDirectory, identify
from vmm.assembly.specification import check_specification
from vmm.guest.console import GuestAction
from vmm.memory.ram_block import RamBlock
from vmm.process import control, update_requests
from vmm.process.image import THIS
from vmm.process.populate import populate

_REST_SECONDS: Final = 20.0
_LOOK: Final = 0.01


class UpdatedMachine:
    """A machine on this host, and the process that has it at the moment."""

    def __init__(self, directory: MachineDirectory) -> None:
        self._directory: Final = directory
        instance = directory.instance()
        assert instance is not None, "launched, and nobody took it away"
        self._instance = instance
        self._epoch = 1
        self._controller = Controller(directory.path / control.CONTROL_SOCKET)
        self._process: NewProcess | None = None

    def populate(self) -> None:
        """Make every page of RAM present."""
        self._controller.channel.send(control.encode(control.TakeRam()))
        _, (number,) = self._controller.channel.receive()
        block = RamBlock.adopt(number)
        populate(block, 0, block.pages)
        block.close()

    async def update(self) -> float:
        """Hand the machine to a new process while it works; return for how many milliseconds its guest stood still."""
        old, new = self._controller, await asyncio.to_thread(started, self._directory)
        paused = handed_over(old, new)
        controller = new.controller(self._epoch)
        assert old.ask(control.Release(epoch=self._epoch)) == control.Done()
        self._epoch += 1
        running = controller.ask(control.Run(epoch=self._epoch))
        assert isinstance(running, control.Running), running
        assert old.ask(control.Destroy()) == control.Done()
        old.channel.close()
        path = self._directory.path
        (path / control.NEXT_CONTROL_SOCKET).rename(path / control.CONTROL_SOCKET)
        await end_process(self._instance.vmm, kill=False)
        if self._process is not None:
            with self._process.process:
                pass  # it has ended: its pipes are closed, and it is reaped
        self._controller, self._process = controller, new
        self._instance = Instance(self._instance.boot_id, identify(new.process.pid), self._instance.host, "")
        self._directory.write_instance(self._instance)
        controller.works(20)
        return (running.executed_ns - paused.last_executed_ns) / 1e6

    def replace_image(self) -> float:
        """Have the process's program replaced by itself; return for how many milliseconds the guest stood still."""
        replaced = self._controller.ask(update_requests.ReplaceImage(command=THIS))
        assert isinstance(replaced, control.Replaced), replaced
        self._controller.works(20)
        return (replaced.executed_ns - replaced.last_executed_ns) / 1e6

    async def wrong(self) -> int:
        """Bring the guest to rest; return what was wrong with its jobs, those that nobody answered included."""
        assert self._controller.ask(control.GuestCommand(action=GuestAction.QUIET, device="")) == control.Done()
        until = time.monotonic() + _REST_SECONDS
        while (found := self._controller.describe().guest).busy_actions and time.monotonic() < until:  # noqa: ASYNC110 - the guest is in another process
            await asyncio.sleep(_LOOK)
        return found.errors + found.busy_actions

    @property
    def own(self) -> tuple[int, int]:
        """The machine's processes."""
        return (self._instance.vmm.pid, self._instance.host.pid)

    def processes(self) -> list[int]:
        """Return the processes of this host whose command line names the machine's folder."""
        folder = str(self._directory.path).encode()
        found = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended by now
                if path.name.isdecimal() and folder in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
        return found

    def close(self) -> None:
        """Close the connection."""
        self._controller.channel.close()


@contextlib.asynccontextmanager
async def updated_machine(folder: Path, size: int, *, populated: bool) -> AsyncIterator[UpdatedMachine]:
    """Run a machine of so many bytes; nothing of it is left afterwards.

    RAM holds what a booted system's does, and is there to the last page where it is `populated`; else it is a hole.
    """
    document = document_of(size)
    if not populated:
        image = folder / "image"
        image.write_bytes(b"benchmark")  # one page
        document["memory"] = {"size": size, "image": str(image)}
    specification = check_specification(document, "the benchmark's machine")
    directory = await launch(RunDirectory(folder), uuid4(), specification, incoming=False)
    try:
        machine = UpdatedMachine(directory)
        if populated:
            machine.populate()
        yield machine
        machine.close()
    finally:
        await take_away(directory, None)


def document_of(size: int) -> dict[str, object]:
    """Return the specification of the machine, of so many bytes of RAM."""
    return {
        "name": "updated",
        "memory": {"size": size},
        "guest": {"cpu_dirty_rate": 64 * MIB, "working_set": 128 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": 32 * MIB}],
    }
