"""The process of an agent: its command line, and serving what it offers until it is told to stop.

The two agents of a host differ in what they do for machines, and in nothing of this.
"""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol

from vfio_host.interface.large_buffers import keep_large_buffers
from vm_migration.daemon.audit_file import AUDIT_LOG, audit_file
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.daemon.custodies import Complain, no_complaint
from vm_migration.daemon.host_burden import TellBurden, no_burden
from vm_migration.daemon.host_place import HostPlace, own_place
from vm_migration.daemon.host_readings import ReadOwn, host_readings, no_own
from vm_migration.daemon.host_service import host_service
from vm_migration.daemon.life import Life, run
from vm_migration.daemon.metrics import metrics
from vm_migration.daemon.presence import presence
from vm_migration.daemon.seat import Seat
from vm_migration.daemon.traces import tracing
from vm_migration.link.server import AgentServer, Service, require_free
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vm_migration.telemetry import logs
from vm_migration.telemetry.daemons import Daemon

Side = Literal["source", "dest"]
_log: Final = logs.get(__name__)


class Agent(Protocol):
    """What lives behind the services."""

    async def recover(self) -> None:
        """Go on with what an earlier life left; before anybody can call."""

    async def stop(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An agent, where it listens, the services that speak for it beside Host, and what it complains about there.

    `also` are further addresses that it listens at.
    """

    agent: Agent
    address: str
    services: Sequence[Service]
    complain: Complain = no_complaint
    also: Sequence[str] = ()
    burden: TellBurden = no_burden
    read: ReadOwn = no_own
    """What it reads of its own for the metrics."""


Make = Callable[[Configuration, HostPlace], Offer]


def run_host_agent(side: Side, about: str | None, make: Make) -> None:
    """Read the command line, run the agent until it is told to stop, and exit."""
    gc.freeze()  # what was imported stays: the collector need not look at it again
    program = f"viaduct-{side}-agent"
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--config", type=Path, help="viaduct.toml (also VIADUCT_CONFIG)")
    parser.add_argument("--insecure", action="store_true", help="plaintext, on loopback only (also VIADUCT_INSECURE=1)")
    parser.add_argument("--debug", action="store_true", help="tracebacks on errors")
    arguments = parser.parse_args()
    body = partial(_serve, side, make, arguments.config, arguments.insecure)
    sys.exit(run(program, body, debug=arguments.debug))


async def _serve(side: Side, make: Make, config: Path | None, insecure: bool, life: Life) -> None:
    """Serve until the daemon is told to stop.

    Raises:
        InvalidDocument, InvalidInput: The configuration is not usable.
        Refused: The address is in use.
    """
    keep_large_buffers()
    configuration = load(config, os.environ, insecure=insecure)
    async with tracing(configuration, f"viaduct-{side}-agent"):  # what an earlier life left, too
        await _serve_agent(side, make, configuration, life)


async def _serve_agent(side: Side, make: Make, configuration: Configuration, life: Life) -> None:
    place = own_place(configuration)
    offer = make(configuration, place)
    services = [host_service(place, configuration.tls_files(), offer.complain, offer.burden), *offer.services]
    for address in (offer.address, *offer.also):
        require_free(address)  # another agent that serves there must not lose its journals to one that cannot
    seat = Seat(place.state_dir, side)
    seat.take()
    await offer.agent.recover()
    async with AsyncExitStack() as stack:
        log = configuration.audit.file or place.state_dir / AUDIT_LOG
        audit = await stack.enter_async_context(audit_file(log, f"viaduct-{side}-agent"))
        server = await stack.enter_async_context(
            AgentServer(
                offer.address,
                configuration.tls_files(),
                services,
                also=offer.also,
                audit=audit.write,
                limits=configuration.server_limits(),
            )
        )
        stack.push_async_callback(offer.agent.stop)
        await stack.enter_async_context(presence(configuration, place.host, side))
        read = host_readings(place, SoftwareHypervisor(place.run_dir), offer.burden, offer.read)
        told = await stack.enter_async_context(metrics(configuration, Daemon(f"viaduct-{side}-agent"), read))
        life.ready(address=server.address, host=place.host, **told)
        await _stopped_or_replaced(life, seat)
        await server.drain()


async def _stopped_or_replaced(life: Life, seat: Seat) -> None:
    lost = asyncio.create_task(seat.lost(), name="seat")
    stopped = asyncio.create_task(life.stopped(), name="stop")
    await asyncio.wait([lost, stopped], return_when=asyncio.FIRST_COMPLETED)
    if lost.done() and not stopped.done():
        _log.error("another agent of this host has started since: this one ends")
        life.stop()
    for task in (lost, stopped):
        task.cancel()
    await asyncio.gather(lost, stopped, return_exceptions=True)
