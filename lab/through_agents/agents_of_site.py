"""The two source agents of the lab's site, as calls: create, look, watch, destroy."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc.aio

from vm_migration.api.v1.machine_pb2 import CreateMachineRequest, MachineRequest
from vm_migration.api.v1.machine_pb2_grpc import MachinesStub
from vm_migration.api.v1.source_pb2 import AttemptReport, AttemptRequest
from vm_migration.api.v1.source_pb2_grpc import SourceStub
from vm_migration.api.v1.types_pb2 import AttemptKey, MachineStatus
from vm_migration.daemon.configuration import Configuration
from vm_migration.link.call import call, stream
from vm_migration.link.channel import open_channel
from vmm.assembly.specification import MachineSpecification

_SECONDS: Final = 30.0
_SILENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class HostAgent:
    """One host's source agent."""

    host: str
    channel: grpc.aio.Channel

    async def create(self, specification: MachineSpecification) -> MachineStatus:
        """Create a machine, running."""
        request = CreateMachineRequest(specification=specification.to_json())
        return await call(MachinesStub(self.channel).CreateMachine, request, peer=self.host, deadline=_SECONDS)

    async def look(self, machine: str) -> MachineStatus:
        """Return what a machine is, by its id or name."""
        request = MachineRequest(machine=machine)
        return await call(MachinesStub(self.channel).GetMachine, request, peer=self.host, deadline=_SECONDS)

    async def destroy(self, machine: str) -> None:
        """End a machine."""
        request = MachineRequest(machine=machine)
        await call(MachinesStub(self.channel).DestroyMachine, request, peer=self.host, deadline=_SECONDS)

    def watch(self, key: AttemptKey) -> AsyncGenerator[AttemptReport, None]:
        """Follow an attempt to its end."""
        request = AttemptRequest(key=key)
        return stream(SourceStub(self.channel).Watch, request, peer=self.host, silence=_SILENCE)

    async def report(self, key: AttemptKey) -> AttemptReport:
        """Return what is known of an attempt."""
        request = AttemptRequest(key=key)
        return await call(SourceStub(self.channel).GetAttempt, request, peer=self.host, deadline=_SECONDS)


@contextlib.asynccontextmanager
async def connected(configuration: Configuration) -> AsyncIterator[dict[str, HostAgent]]:
    """Open a channel to the source agent of every host."""
    agents: dict[str, HostAgent] = {}
    try:
        for host, section in configuration.host.items():
            channel = open_channel(section.source, configuration.tls_files(), host)
            agents[host] = HostAgent(host, channel)
        yield agents
    finally:
        for agent in agents.values():
            await agent.channel.close()
