"""The other processes of a twin host: started beside the one that has the machine, or from its files."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from uuid import UUID

from tests.source_agent.updating.life import Life
from tests.source_agent.updating.twin import TwinHost, TwinPort, TwinProcess
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.succession import Successor, Woken
from vm_migration.machine.waiting_in_files import VOLATILE, WaitingPlace


class TwinSuccessor:
    """Implements `Successor`."""

    path = Path("/run/update.sock")

    def __init__(self, host: TwinHost, life: Life, process: TwinProcess) -> None:
        self._host, self._life, self._process = host, life, process

    async def prepared(self) -> None:
        async with self._life.asked("prepared"):
            self._require()

    async def ready(self) -> str:
        async with self._life.asked("ready"):
            self._require()
            if self._host.silent:
                await asyncio.Event().wait()
            self._host.next_socket = self._process.instance.name
            return self._process.instance.name

    def keep(self) -> None:
        with self._life.step("keep"):
            self._process.kept = True

    def close(self) -> None:
        if not self._process.kept and not self._life.over:
            self._process.end()

    async def end(self) -> None:
        async with self._life.asked("end successor"):
            self._process.end()

    def _require(self) -> None:
        if not self._process.alive:
            raise LaunchFailed("It ended")


class TwinWoken:
    """Implements `Woken`."""

    def __init__(self, host: TwinHost, life: Life, process: TwinProcess) -> None:
        self._host, self._life, self._process = host, life, process

    @property
    def name(self) -> str:
        return self._process.instance.name

    def keep(self) -> None:
        with self._life.step("write instance"):
            self._host.listed, self._host.removed = self.name, False
        with self._life.step("keep"):
            self._process.kept = True

    async def end(self) -> None:
        async with self._life.asked("end woken"):
            self._process.end()


class TwinSuccession:
    """Implements `Succession`."""

    def __init__(self, host: TwinHost, life: Life) -> None:
        self._host, self._life = host, life

    def program(self) -> tuple[str, ...]:
        return ("new",)

    async def start(self, place: MachinePlace, *, rehearses: bool = False) -> Successor:
        del place, rehearses
        async with self._life.asked("start"):
            return TwinSuccessor(self._host, self._life, self._host.started(incoming=True))

    def connect(self, place: MachinePlace) -> MachinePort:
        del place
        return cast("MachinePort", TwinPort(self._host, self._life, following=True))

    def put_in_place(self, place: MachinePlace, name: str) -> None:
        del place
        if self._host.listed == name:
            return
        with self._life.step("rename"):
            if self._host.next_socket:
                self._host.socket, self._host.next_socket = self._host.next_socket, ""
        with self._life.step("write instance"):
            self._host.listed = name

    async def end(self, name: str, *, patience: float = 0.0) -> None:
        del patience
        found = self._host.processes.get(name)
        if found is not None and found.alive:
            async with self._life.asked("end"):
                found.end()

    async def waiting_place(self, specification: str) -> WaitingPlace | None:
        del specification
        return WaitingPlace(Path("/ram.suspended"), VOLATILE)

    async def waits(self, place: MachinePlace, specification: str, where: WaitingPlace, pause: int) -> bool | None:
        del place, specification, where
        if self._host.unmounted and not self._host.believed:
            return None
        if self._host.waits is None or self._host.unmounted:
            return False
        return True if self._host.waits.pause == pause and not self._host.unreadable else None

    @contextlib.contextmanager
    def believing(self, machine: UUID) -> Iterator[None]:
        del machine
        self._host.believed += 1
        try:
            yield
        finally:
            self._host.believed -= 1

    async def forget(self, place: MachinePlace, specification: str) -> None:
        del place, specification
        async with self._life.asked("forget"):
            self._host.waits = None

    async def wake(self, place: MachinePlace, specification: str, path: Path) -> Woken:
        del place, specification
        async with self._life.asked("wake"):
            left = self._host.waits
            if any(each.alive for each in self._host.processes.values()):
                raise LaunchFailed("Memory file is another machine's RAM at this moment")
            if left is None or self._host.refuses_to_wake:
                raise LaunchFailed(f"No suspended machine can be read at {path}")
            process = self._host.started(incoming=True)
            process.pause, process.knows, process.fence, process.whole = left.pause, left.knows, left.fence, True
            self._host.socket = process.instance.name
            return TwinWoken(self._host, self._life, process)
