"""Two agents of one host: one that stands still in the middle of a step, and one that was started meanwhile."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from tests.fakes.fake_machine import FakeMachine
from vm_migration.machine.errors import CutOff
from vm_migration.machine.hypervisor import MachinePlace
from vm_migration.machine.port import MachinePort
from vm_migration.machine.run_directory import MachineDirectory
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.assembly.specification import MachineSpecification
from vmm.process.control import Description
from vmm.vfio.device_records import DeviceRecord


class Freeze:
    """A point at which an agent stands still until it is thawed; once only."""

    def __init__(self, point: str) -> None:
        self.point = point
        self._reached = asyncio.Event()
        self._thawed = asyncio.Event()

    async def at(self, point: str) -> None:
        if point == self.point and not self._reached.is_set():
            self._reached.set()
            await self._thawed.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(30):
            await self._reached.wait()

    def thaw(self) -> None:
        self._thawed.set()


class Connection(FakeMachine):
    """One agent's connection to a machine process, which several may have; the process's fence tells them apart."""

    __slots__ = ("freeze", "mine")

    def __init__(self, machine: FakeMachine, freeze: Freeze | None) -> None:
        self.__dict__ = machine.__dict__  # one process stands behind all connections
        self.freeze = freeze
        self.mine = 0

    async def attach(self, epoch: int, controller: int) -> Description:
        if controller < self.controller:
            raise CutOff(f"Controller {controller} is older than {self.controller}")
        self.mine = controller
        return await super().attach(epoch, controller)

    async def load(self, state: bytes, pause: int) -> None:
        await self._reach("before load")
        await super().load(state, pause)
        await self._reach("after load")

    async def run(self, epoch: int) -> int:
        await self._reach("before run")
        executed = await super().run(epoch)
        await self._reach("after run")
        return executed

    async def destroy(self) -> None:
        await self._reach("before destroy")
        await super().destroy()

    async def write_device_data(self, records: Sequence[DeviceRecord]) -> None:
        await self._reach("before device data")
        await super().write_device_data(records)

    def _asked(self, name: str) -> None:
        commands = name != "describe" and not name.startswith("attach")
        if commands and self.mine != self.controller:
            raise CutOff(f"Controller {self.mine} was cut off by {self.controller}")
        super()._asked(name)

    async def _reach(self, point: str) -> None:
        if self.freeze is not None:
            await self.freeze.at(point)


class FreezingHypervisor(SoftwareHypervisor):
    """One agent's hands on real processes, which may stand still at a point."""

    freeze: Freeze | None = None
    machine: FakeMachine | None = None
    """What every place's process is, where it is no real one."""

    async def launch(self, machine: UUID, specification: MachineSpecification, *, incoming: bool) -> MachineDirectory:
        await self._reach("before launch")
        place = await super().launch(machine, specification, incoming=incoming)
        await self._reach("after launch")
        return place

    async def take_away(self, place: MachinePlace, machine: MachinePort | None, *, only: str = "") -> None:
        await self._reach("before it is taken away")
        await super().take_away(place, machine, only=only)

    def connect(self, place: MachinePlace) -> MachinePort:
        return super().connect(place) if self.machine is None else Connection(self.machine, self.freeze)

    async def _reach(self, point: str) -> None:
        if self.freeze is not None:
            await self.freeze.at(point)
