"""Host over gRPC: what both agents of a host answer about it."""

import asyncio
from functools import partial
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.machine_pb2_grpc import HostServicer, add_HostServicer_to_server
from vm_migration.daemon.custodies import Complain, Custodies, no_complaint
from vm_migration.daemon.host_facts import FEATURES, VERSION
from vm_migration.daemon.host_place import HostPlace
from vm_migration.daemon.leftovers import leftovers
from vm_migration.handover.journals import Journals
from vm_migration.link.served import Context
from vm_migration.link.server import Service
from vm_migration.machine.memory_use import memory_in_use
from vm_migration.machine.software_hypervisor import SoftwareHypervisor


class HostService(HostServicer):
    """Answers what this host is."""

    def __init__(self, place: HostPlace, complain: Complain) -> None:
        self._place: Final = place
        self._hypervisor: Final = SoftwareHypervisor(place.run_dir)
        self._journals: Final = Journals(place.state_dir / "journal")
        self._custodies: Final = Custodies(self._journals, self._hypervisor, complain)

    async def DescribeHost(self, request: types_pb2.Empty, context: Context) -> types_pb2.HostFacts:
        """Return the host's facts."""
        del request, context
        return types_pb2.HostFacts(
            host=self._place.host,
            version=VERSION,
            boot_id=self._hypervisor.boot_id,
            memory_budget_bytes=self._place.memory_budget,
            memory_in_use_bytes=memory_in_use(self._hypervisor),
            features=FEATURES,
        )

    async def ListCustodies(self, request: types_pb2.Empty, context: Context) -> types_pb2.CustodyReport:
        """Return every journal and every machine process of the host."""
        del request, context
        custodies, left = await asyncio.gather(
            self._custodies.look(),
            asyncio.to_thread(leftovers, self._journals, self._hypervisor, self._place.run_dir),
        )
        return types_pb2.CustodyReport(host=self._place.host, version=VERSION, custodies=custodies, leftovers=left)


def host_service(place: HostPlace, complain: Complain = no_complaint) -> Service:
    """Return the service as a server takes it; `complain` says what the agent waits for, or refuses to do."""
    return Service("vm_migration.api.v1.Host", partial(add_HostServicer_to_server, HostService(place, complain)))
