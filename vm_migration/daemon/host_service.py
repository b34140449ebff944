"""Host over gRPC: what both agents of a host answer about it."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.machine_pb2_grpc import HostServicer, add_HostServicer_to_server
from vm_migration.daemon.custodies import Complain, Custodies, no_complaint
from vm_migration.daemon.direct_offer import features_offered
from vm_migration.daemon.host_burden import TellBurden, no_burden
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_place import HostPlace
from vm_migration.daemon.leftovers import leftovers
from vm_migration.handover.journals import Journals
from vm_migration.link.served import Context
from vm_migration.link.server import Service
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.memory_use import memory_in_use, memory_left
from vm_migration.machine.software_hypervisor import SoftwareHypervisor


class HostService(HostServicer):
    """Answers what this host is."""

    def __init__(
        self,
        place: HostPlace,
        complain: Complain,
        burden: TellBurden,
        clock: Callable[[], float] = time.time,
        *,
        tls: TlsFiles | None = None,
    ) -> None:
        self._place: Final = place
        self._burden: Final = burden
        self._clock: Final = clock
        self._tls: Final = tls
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
            features=features_offered(self._tls),
            offer=self._place.offer.message(),
            load=self._load(),
        )

    def _load(self) -> types_pb2.HostLoad:
        burden = self._burden()
        return types_pb2.HostLoad(
            machines=sum(1 for _ in self._hypervisor.all()),
            memory_reserved_bytes=sum(burden.reserved.values()),
            memory_free_bytes=max(0, memory_left(self._hypervisor, self._place.memory_budget, burden.reserved)),
            attempts=burden.attempts,
        )

    async def ListCustodies(self, request: types_pb2.Empty, context: Context) -> types_pb2.CustodyReport:
        """Return every journal and every machine process of the host."""
        del request, context
        custodies, left = await asyncio.gather(
            self._custodies.look(),
            asyncio.to_thread(leftovers, self._journals, self._hypervisor, self._place.run_dir),
        )
        return types_pb2.CustodyReport(
            host=self._place.host, version=VERSION, custodies=custodies, leftovers=left, clock_s=self._clock()
        )


def host_service(
    place: HostPlace, tls: TlsFiles | None, complain: Complain = no_complaint, burden: TellBurden = no_burden
) -> Service:
    """Return the service as a server takes it; `complain` says what the agent waits for, or refuses to do."""
    service = HostService(place, complain, burden, tls=tls)
    return Service("vm_migration.api.v1.Host", partial(add_HostServicer_to_server, service))
