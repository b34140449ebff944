"""`viaduct-source-agent`: the daemon of a host that creates machines and lets them go."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from source_agent.agent import SourceAgent
from source_agent.elsewhere import Elsewhere
from source_agent.machines_service import MachinesService
from source_agent.outgoing_attempt import Surroundings
from source_agent.source_service import SourceService
from vm_migration.api.v1.machine_pb2_grpc import add_MachinesServicer_to_server
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.hooks import HookContext, HookPoint, run_hooks
from vm_migration.daemon.host_agent import Offer, run_host_agent
from vm_migration.daemon.host_place import HostPlace
from vm_migration.handover.journals import Journals
from vm_migration.link.server import Service
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.machine.software_succession import SoftwareSuccession
from vm_migration.transfer.hash_rate import measure_hashing


def main() -> None:
    """Run the daemon until it is told to stop."""
    run_host_agent("source", __doc__, offer)


def offer(configuration: Configuration, place: HostPlace) -> Offer:
    """Return the agent of this host, and what it serves."""
    hash_bytes_per_s = measure_hashing(time.perf_counter)
    hypervisor = SoftwareHypervisor(place.run_dir, place.units, qemu=place.offer.qemu)
    agent = SourceAgent(
        host=place.host,
        journals=Journals(place.state_dir / "journal"),
        hypervisor=hypervisor,
        succession=SoftwareSuccession(place.run_dir, place.units),
        memory_budget=place.memory_budget,
        most_attempts=configuration.limits.attempts,
        offer=place.offer,
        hash_bytes_per_s=hash_bytes_per_s,
        surroundings=_surroundings(configuration, place, hash_bytes_per_s, hypervisor.boot_id),
        elsewhere=Elsewhere(
            {name: host.dest for name, host in configuration.host.items() if name != place.host},
            configuration.tls_files(),
        ),
    )
    own = SourceService(agent, configuration.tls_files())
    services = [
        Service("vm_migration.api.v1.Machines", partial(add_MachinesServicer_to_server, MachinesService(agent))),
        Service("vm_migration.api.v1.Source", partial(add_SourceServicer_to_server, own)),
    ]
    return Offer(agent, place.source, services, agent.complaint, burden=agent.burden, read=agent.readings)


def _surroundings(
    configuration: Configuration, place: HostPlace, hash_bytes_per_s: float, boot_id: str
) -> Callable[[str, str, int], Surroundings]:
    def make(attempt: str, machine: str, epoch: int) -> Surroundings:
        context = HookContext(attempt=attempt, machine=machine, epoch=epoch, host=place.host)
        return Surroundings(
            tls=configuration.tls_files(),
            before_handoff=_before_handoff(configuration, context),
            hash_bytes_per_s=hash_bytes_per_s,
            boot_id=boot_id,
        )

    return make


def _before_handoff(configuration: Configuration, context: HookContext) -> Callable[[], Awaitable[None]]:
    async def hook() -> None:
        point = HookPoint.BEFORE_HANDOFF
        await run_hooks(point, configuration.hooks.commands(point), context, configuration.hooks.deadline)

    return hook


if __name__ == "__main__":
    main()
