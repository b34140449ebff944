"""Machines over gRPC: what a person does to machines through this agent."""

from typing import Final

from source_agent.agent import SourceAgent
from source_agent.report import machine_status
from source_agent.retaken import retaken
from vm_migration.api.v1 import machine_pb2, types_pb2
from vm_migration.api.v1.machine_pb2_grpc import MachinesServicer
from vm_migration.errors import InvalidInput
from vm_migration.link.served import Context
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import MachineSpecification, parse_specification


class MachinesService(MachinesServicer):
    """Creates, shows, pauses, resumes and destroys machines."""

    def __init__(self, agent: SourceAgent) -> None:
        self._agent: Final = agent

    async def CreateMachine(
        self, request: machine_pb2.CreateMachineRequest, context: Context
    ) -> types_pb2.MachineStatus:
        """Start a machine."""
        del context
        holding = await self._agent.machines.create(specification_of(request.specification))
        return machine_status(holding, self._agent.host)

    async def ListMachines(self, request: types_pb2.Empty, context: Context) -> machine_pb2.ListMachinesResponse:
        """Return every machine of this host."""
        del request, context
        holdings = await self._agent.holdings.all()
        return machine_pb2.ListMachinesResponse(machines=[machine_status(each, self._agent.host) for each in holdings])

    async def GetMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """Return one machine."""
        del context
        return machine_status(await self._agent.holdings.find(request.machine), self._agent.host)

    async def PauseMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """Pause a machine."""
        del context
        return await self._set_running(request.machine, running=False)

    async def ResumeMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """Resume a machine."""
        del context
        return await self._set_running(request.machine, running=True)

    async def SuspendMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """Have a guest suspend to RAM."""
        del context
        return machine_status(await self._agent.machines.set_awake(request.machine, awake=False), self._agent.host)

    async def WakeMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """Wake a guest."""
        del context
        return machine_status(await self._agent.machines.set_awake(request.machine, awake=True), self._agent.host)

    async def DestroyMachine(self, request: machine_pb2.MachineRequest, context: Context) -> types_pb2.MachineStatus:
        """End a machine."""
        del context
        holding = await retaken(lambda: self._agent.machines.destroy(request.machine))
        return machine_status(holding, self._agent.host)

    async def MeasureDirtyRate(
        self, request: machine_pb2.MeasureDirtyRateRequest, context: Context
    ) -> machine_pb2.DirtyRate:
        """Log a machine's writes for a while."""
        del context
        holding, rate = await retaken(lambda: self._agent.machines.dirty_rate(request.machine, request.window_ms))
        return machine_pb2.DirtyRate(
            status=machine_status(holding, self._agent.host),
            window_ms=rate.window_ms,
            cpu_pages=rate.cpu_pages,
            dma_pages=rate.dma_pages,
            pages=rate.pages,
            exact=rate.exact,
            failure=rate.failure,
            sampled=rate.sampled,
        )

    async def _set_running(self, machine: str, *, running: bool) -> types_pb2.MachineStatus:
        holding = await retaken(lambda: self._agent.machines.set_running(machine, running=running))
        return machine_status(holding, self._agent.host)


def specification_of(data: bytes) -> MachineSpecification:
    """Read a specification that a peer sent.

    Raises:
        InvalidInput: With everything that is wrong with it.
    """
    try:
        return parse_specification(data)
    except InvalidDocument as error:
        faults = "; ".join(str(fault) for fault in error.faults)
        raise InvalidInput("invalid-specification", f"Specification is not valid: {faults}", "Correct it") from error
