"""What the two agents of a simulated host serve: those of the orchestrator's tests, for many machines, and in time."""
# ruff: noqa: N802 - methods are named as on the wire

from functools import partial
from typing import Final

from benchmarks.scale.fleet import OPENED, Fleet, TimedAttempt
from tests.orchestrator.fake_services import FakeDestination, FakeHost, FakeMachines, FakeSource
from vm_migration.api.v1 import destination_pb2 as destination
from vm_migration.api.v1 import machine_pb2 as machine
from vm_migration.api.v1 import source_pb2 as source
from vm_migration.api.v1 import types_pb2 as types
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server, add_MachinesServicer_to_server
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.daemon.host_facts import FEATURES, VERSION
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.link.server import Service

_API: Final = "vm_migration.api.v1"


def source_services(fleet: Fleet, host: str) -> list[Service]:
    """Return what a host's source agent serves."""
    facts = SimulatedHost(fleet, host, leaving=True)
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, facts)),
        Service(f"{_API}.Machines", partial(add_MachinesServicer_to_server, SimulatedMachines(fleet, host))),
        Service(f"{_API}.Source", partial(add_SourceServicer_to_server, SimulatedSource(fleet, host))),
    ]


def dest_services(fleet: Fleet, host: str) -> list[Service]:
    """Return what its destination agent serves."""
    facts = SimulatedHost(fleet, host, leaving=False)
    return [
        Service(f"{_API}.Host", partial(add_HostServicer_to_server, facts)),
        Service(f"{_API}.Destination", partial(add_DestinationServicer_to_server, SimulatedDestination(fleet, host))),
    ]


class SimulatedSource(FakeSource):
    """The source's side of one host."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        super().__init__(fleet, host)
        self._fleet = fleet

    async def Begin(self, request: source.BeginRequest, context: object) -> source.BeginResponse:
        key, status = request.key, self._fleet.machines[request.key.machine]
        known = self._fleet.attempts.get(key.attempt)
        if known is None:
            known = self._fleet.attempts[key.attempt] = TimedAttempt(self._fleet, request, status.epoch + 1)
            self._fleet.leaving[self.host].add(key.attempt)
            self._fleet.happened(key.attempt, OPENED)
        return source.BeginResponse(
            key=known.report.key,
            secret_hash=b"h" * 32,
            source=self.host,
            requirements=types.Requirements(machine=status.machine, name=status.name, ram_bytes=status.ram_bytes),
        )

    async def Tune(self, request: source.TuneRequest, context: object) -> source.AttemptReport:
        report = await super().Tune(request, context)
        self._fleet.happened(request.key.attempt, f"term {request.key.term}")
        return report


class SimulatedDestination(FakeDestination):
    """The destination's side of one host."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        super().__init__(fleet, host)
        self._fleet = fleet

    async def Prepare(self, request: destination.PrepareRequest, context: object) -> destination.PrepareResponse:
        self._fleet.arriving[self.host].add(request.key.attempt)
        return await super().Prepare(request, context)


class SimulatedMachines(FakeMachines):
    """The machines of one host."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        super().__init__(fleet, host)
        self._fleet = fleet

    async def ListMachines(self, request: types.Empty, context: object) -> machine.ListMachinesResponse:
        return machine.ListMachinesResponse(machines=self._fleet.at[self.host].values())


class SimulatedHost(FakeHost):
    """What one host is."""

    def __init__(self, fleet: Fleet, host: str, *, leaving: bool) -> None:
        super().__init__(fleet, host)
        self._fleet = fleet
        self._attempts = fleet.leaving[host] if leaving else fleet.arriving[host]

    async def DescribeHost(self, request: types.Empty, context: object) -> types.HostFacts:
        said, load = self._fleet.description, self._fleet.load(self.host)
        load.attempts = len(self._attempts)
        return types.HostFacts(
            host=self.host,
            version=VERSION,
            boot_id=self.host,
            memory_budget_bytes=said.budget_bytes,
            memory_in_use_bytes=said.ram_bytes * len(self._fleet.at[self.host]),
            features=FEATURES,
            offer=HostOffer(link_bytes_per_s=said.link_bytes_per_s).message(),
            load=load,
        )
