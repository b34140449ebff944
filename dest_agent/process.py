"""`viaduct-dest-agent`: the daemon of a host that takes machines in."""

import ipaddress
from collections.abc import Sequence
from functools import partial
from typing import Final

from dest_agent.agent import AfterActive, DestAgent
from dest_agent.arriving_machine import BeforeReady
from dest_agent.destination_service import BULK_SERVICE, DestinationService, add_bulk
from dest_agent.direct_listener import DirectListener
from dest_agent.readings import arrival_readings
from dest_agent.sources import Sources
from dest_agent.stream_door import StreamDoor
from dest_agent.stream_service import StreamService, add_streams
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.hooks import HookContext, HookPoint, run_hooks
from vm_migration.daemon.host_agent import Offer, run_host_agent
from vm_migration.daemon.host_place import HostPlace
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record
from vm_migration.link.address import join_address, split_address
from vm_migration.link.machine_stream.opening import CARRY_SERVICE
from vm_migration.link.server import Service
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import ARRIVALS_ACTIVATED
from vm_migration.telemetry.gauges import Reading

_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, never listened at from here
_log: Final = logs.get(__name__)


def main() -> None:
    """Run the daemon until it is told to stop."""
    run_host_agent("dest", __doc__, offer)


def offer(configuration: Configuration, place: HostPlace) -> Offer:
    """Return the agent of this host, and what it serves."""
    agent = DestAgent(
        host=place.host,
        journals=Journals(place.state_dir / "journal"),
        hypervisor=SoftwareHypervisor(place.run_dir, place.units, qemu=place.offer.qemu),
        memory_budget=place.memory_budget,
        after_active=_after_active(configuration, place),
        before_ready=_before_ready(configuration, place),
        sources=Sources({host: each.source for host, each in configuration.host.items()}, configuration.tls_files()),
        arrival_patience=place.arrival_patience,
        most_arrivals=configuration.limits.attempts,
        offer=place.offer,
    )
    bulk = bulk_address(place)
    network, tls = split_address(bulk)[0], configuration.tls_files()
    direct = DirectListener(agent, network, tls)
    door = StreamDoor(agent.holdings, network, tls)
    service = DestinationService(agent, place.dest, bulk, direct, door, tls=tls)
    services = [
        Service("vm_migration.api.v1.Destination", partial(add_DestinationServicer_to_server, service)),
        Service(BULK_SERVICE, partial(add_bulk, service)),
        Service(CARRY_SERVICE, partial(add_streams, StreamService(agent))),
    ]
    also = further_addresses(place.dest, bulk)

    def readings() -> Sequence[Reading]:
        return arrival_readings(agent.holdings.arriving.values())

    return Offer(_Both(agent, direct), place.dest, services, agent.complaint, also, agent.burden, readings)


class _Both:
    """The agent, and its direct streams, which end before it."""

    def __init__(self, agent: DestAgent, direct: DirectListener) -> None:
        self._agent: Final = agent
        self._direct: Final = direct

    async def recover(self) -> None:
        await self._agent.recover()

    async def stop(self) -> None:
        await self._direct.close()
        await self._agent.stop()


def bulk_address(place: HostPlace) -> str:
    """Return where bulk streams are sent: the migration network's address, at the agent's own port."""
    if not place.bulk:
        return place.dest
    if ":" in place.bulk and not _is_ipv6(place.bulk):
        return place.bulk
    return join_address(place.bulk, split_address(place.dest)[1])


def further_addresses(dest: str, bulk: str) -> tuple[str, ...]:
    """Return where the agent listens beside `dest`: at the bulk address, where that is not covered by it."""
    host = split_address(dest)[0]
    return () if bulk == dest or host in _EVERY_ADDRESS else (bulk,)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _after_active(configuration: Configuration, place: HostPlace) -> AfterActive:
    async def hook(record: Record) -> None:
        ARRIVALS_ACTIVATED.add()
        point, context = HookPoint.AFTER_ACTIVE, _context(record, place)
        commands = configuration.hooks.commands(point)
        for report in await run_hooks(point, commands, context, configuration.hooks.deadline):
            if not report.ok:
                _log.warning("hook failed", point=point, report=str(report), attempt=record.attempt)

    return hook


def _before_ready(configuration: Configuration, place: HostPlace) -> BeforeReady:
    async def hook(record: Record) -> None:
        point, context = HookPoint.BEFORE_READY, _context(record, place)
        await run_hooks(point, configuration.hooks.commands(point), context, configuration.hooks.deadline)

    return hook


def _context(record: Record, place: HostPlace) -> HookContext:
    return HookContext(attempt=record.attempt or "", machine=record.machine, epoch=record.epoch, host=place.host)


if __name__ == "__main__":
    main()
