"""Simulated hosts: a disk, machine processes, and the two real agents, which can be killed, frozen and restarted."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol

from dest_agent.agent import DestAgent
from dest_agent.destination_service import BULK_SERVICE, DestinationService, add_bulk
from dest_agent.sources import Sources
from source_agent.agent import SourceAgent
from source_agent.elsewhere import Elsewhere
from source_agent.machines_service import MachinesService
from source_agent.outgoing_attempt import Surroundings
from source_agent.source_service import SourceService
from tests.simulation.channels import Caller
from tests.simulation.disks import ProcessDisk
from tests.simulation.machines import HostMachines, SimulatedHypervisor
from tests.simulation.network import Network
from tests.simulation.serving import Endpoint
from tests.simulation.virtual_loop import Process, VirtualLoop
from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import (
    HostServicer,
    add_HostServicer_to_server,
    add_MachinesServicer_to_server,
)
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.daemon.custodies import Complain, Custodies
from vm_migration.daemon.host_facts import FEATURES, VERSION
from vm_migration.handover.journals import Journals
from vm_migration.handover.memory_disk import MemoryDisk
from vm_migration.handover.record import Record
from vm_migration.link.identity import Identity, Role
from vm_migration.link.served import Context
from vm_migration.link.server import Service

SITE: Final = "sim"
JOURNALS: Final = Path("/journal")
PORTS: Final = {"source": 7001, "dest": 7002}
_BUDGET: Final = 1 << 30
_LOOK_AT_SEAT: Final = 1.0
"""Seconds after which an agent sees that another one has its seat (vm_migration.daemon.seat)."""
_HASH_RATE: Final = 1e9

Side = Literal["source", "dest"]


class _Agent(Protocol):
    def complaint(self, machine: str) -> str: ...
    async def recover(self) -> None: ...
    async def stop(self) -> None: ...


class SimulatedHostService(HostServicer):
    """Host, over simulated journals and machines."""

    def __init__(self, host: str, journals: Journals, hypervisor: SimulatedHypervisor, complain: Complain) -> None:
        self._host: Final = host
        self._hypervisor: Final = hypervisor
        self._custodies: Final = Custodies(journals, hypervisor, complain)

    async def DescribeHost(self, request: types_pb2.Empty, context: Context) -> types_pb2.HostFacts:  # noqa: N802  # gRPC's name
        del request, context
        return types_pb2.HostFacts(
            host=self._host, version=VERSION, boot_id=self._hypervisor.boot_id, memory_budget_bytes=_BUDGET,
            features=FEATURES,
        )  # fmt: skip

    async def ListCustodies(self, request: types_pb2.Empty, context: Context) -> types_pb2.CustodyReport:  # noqa: N802  # gRPC's name
        del request, context
        return types_pb2.CustodyReport(host=self._host, version=VERSION, custodies=await self._custodies.look())


@dataclass
class AgentLife:
    """One life of an agent's process."""

    process: Process
    disk: ProcessDisk
    agent: _Agent
    serving: bool = False


class Happenings(Protocol):
    """What the world is told of its hosts."""

    def said(self, who: str, what: str, **facts: object) -> None:
        """Take a line for the trace."""

    def operated(self, host: "Host", what: str, path: Path | None) -> None:
        """Take note of a disk operation."""


class Host:
    """One host of the site."""

    def __init__(
        self,
        name: str,
        *,
        loop: VirtualLoop,
        network: Network,
        machines: HostMachines,
        site: Sequence[str],
        happenings: Happenings,
    ) -> None:
        self.name: Final = name
        self.loop: Final = loop
        self.network: Final = network
        self.machines: Final = machines
        self.site: Final = tuple(site)
        self.disk: Final = MemoryDisk()
        self.lives: Final[dict[Side, AgentLife]] = {}
        self._replaced: Final[list[Process]] = []
        """Agents that stand still, and whose place others have taken; a host has one port for each side."""
        self.superseded: Final[list[Process]] = []
        """Those of them that were woken."""
        self._happenings: Final = happenings

    def address(self, side: Side) -> str:
        return f"{self.name}:{PORTS[side]}"

    def start(self, side: Side) -> None:
        """Start an agent: it recovers, and then serves."""
        process = Process(f"{self.name}/{side}")
        disk = ProcessDisk(self.disk, process, partial(self._happenings.operated, self))
        journals = Journals(JOURNALS, disk)
        hypervisor = SimulatedHypervisor(self.machines, process)
        caller = Caller(self.network, self.name, process, Identity(SITE, Role.HOST, self.name))
        services: list[Service]
        if side == "source":
            source = SourceAgent(
                host=self.name, journals=journals, hypervisor=hypervisor, memory_budget=_BUDGET,
                hash_bytes_per_s=_HASH_RATE, surroundings=self._surroundings(caller), wall=self.loop.time,
                elsewhere=Elsewhere(
                    {host: f"{host}:{PORTS['dest']}" for host in self.site if host != self.name},
                    channels=caller.channels(),
                ),
            )  # fmt: skip
            agent: _Agent = source
            services = [
                Service("Machines", partial(add_MachinesServicer_to_server, MachinesService(source))),
                Service("Source", partial(add_SourceServicer_to_server, SourceService(source))),
            ]
        else:
            dest = DestAgent(
                host=self.name, journals=journals, hypervisor=hypervisor, memory_budget=_BUDGET,
                after_active=_nothing_after_active,
                sources=Sources(
                    {host: f"{host}:{PORTS['source']}" for host in self.site}, channels=caller.channels()
                ),
            )  # fmt: skip
            agent = dest
            service = DestinationService(dest, self.address("dest"), self.address("dest"))
            services = [
                Service("Destination", partial(add_DestinationServicer_to_server, service)),
                Service(BULK_SERVICE, partial(add_bulk, service)),
            ]
        own = SimulatedHostService(self.name, journals, hypervisor, agent.complaint)
        services.append(Service("Host", partial(add_HostServicer_to_server, own)))
        life = self.lives[side] = AgentLife(process, disk, agent)
        self._happenings.said(process.name, "started")
        self.loop.create_task(self._serve(side, life, services), name=process.name, context=process.context.copy())

    def kill(self, side: Side) -> None:
        """End an agent's process at this very moment."""
        life = self.lives.get(side)
        if life is not None:
            self.end(life)

    def end(self, life: AgentLife) -> None:
        """End one life of an agent at this very moment, whether or not another has taken its place."""
        if life.process.alive:
            self._happenings.said(life.process.name, "killed")
            end_process(self.loop, life.process)
            life.serving = False

    def freeze(self, side: Side) -> None:
        """Hold an agent's process (SIGSTOP)."""
        life = self.lives.get(side)
        if life is not None and life.process.alive and not life.process.frozen:
            self._happenings.said(life.process.name, "frozen")
            life.process.frozen = True
            self.loop.hold(life.process)

    def thaw(self, side: Side) -> None:
        """Let it go on (SIGCONT)."""
        life = self.lives.get(side)
        if life is not None and life.process.alive and life.process.frozen:
            self._happenings.said(life.process.name, "thawed")
            life.process.frozen = False
            self.loop.let_run(life.process)

    def replace(self, side: Side) -> None:
        """Hold an agent's process and start another in its place, as a watchdog does."""
        life = self.lives.get(side)
        if life is not None and life.process.alive and not life.process.frozen:
            self.freeze(side)
            self._replaced.append(life.process)
            self.start(side)

    def wake_replaced(self) -> None:
        """Let those whose place is taken go on with what they were about to do; they end when they find that out."""
        for process in self._replaced:
            if process.alive and process.frozen:
                self._happenings.said(process.name, "wakes, and its place is taken")
                process.frozen = False
                self.loop.let_run(process)
                self.superseded.append(process)
                self.loop.call_later(_LOOK_AT_SEAT, self._end_replaced, process)
        self._replaced.clear()

    def lose_power(self, keep: Callable[[int], bool]) -> None:
        """End every process; of what was written and not flushed, `keep` says what survives."""
        self._happenings.said(self.name, "loses power")
        self.network.off.add(self.name)
        for side in tuple(self.lives):
            self.kill(side)
        for process in self._replaced:
            end_process(self.loop, process)
        self.machines.lose_power()
        self.disk.restart(keep)

    def _end_replaced(self, process: Process) -> None:
        if process.alive:
            self._happenings.said(process.name, "finds its place taken, and ends")
            end_process(self.loop, process)

    def alive(self, side: Side) -> bool:
        life = self.lives.get(side)
        return life is not None and life.process.alive

    def up(self, side: Side) -> bool:
        """Whether an agent runs and serves."""
        life = self.lives.get(side)
        return life is not None and life.process.alive and not life.process.frozen and life.serving

    def restore(self, side: Side) -> None:
        """See that an agent runs."""
        self.network.off.discard(self.name)
        self.thaw(side)
        if not self.alive(side):
            self.start(side)

    async def _serve(self, side: Side, life: AgentLife, services: list[Service]) -> None:
        await life.agent.recover()
        if self.lives.get(side) is not life:  # replaced while it started: the address is another's
            self._end_replaced(life.process)
            return
        endpoint = Endpoint(self.name, life.process, SITE)
        endpoint.register(services)
        self.network.endpoints[self.address(side)] = endpoint
        life.serving = True
        self._happenings.said(life.process.name, "serves")

    def _surroundings(self, caller: Caller) -> Callable[[str, str, int], Surroundings]:
        def make(attempt: str, machine: str, epoch: int) -> Surroundings:
            del attempt, machine, epoch
            return Surroundings(
                tls=None,
                before_handoff=_nothing_before_handoff,
                hash_bytes_per_s=_HASH_RATE,
                boot_id=self.machines.boot_id,
                wall=self.loop.time,
                channels=caller.channels(),
            )

        return make


def end_process(loop: VirtualLoop, process: Process) -> None:
    """Kill a process at this very moment."""
    process.alive = False
    loop.hold(process)
    for notice in list(process.at_death.values()):
        notice()
    process.at_death.clear()


class _Nothing:
    """A hook that has nothing to do; unlike a coroutine it may be left alone by a process that is killed."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def _nothing_after_active(_record: Record) -> _Nothing:
    return _Nothing()


async def _nothing_before_handoff() -> None:
    return
