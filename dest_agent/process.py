"""`viaduct-dest-agent`: the daemon of a host that takes machines in."""

import argparse
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from dest_agent.agent import AfterActive, DestAgent
from dest_agent.destination_service import BULK_SERVICE, DestinationService, HostService, add_bulk
from vm_migration.api.v1.destination_pb2_grpc import add_DestinationServicer_to_server
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.daemon.hooks import HookContext, HookPoint, run_hooks
from vm_migration.daemon.host_place import HostPlace, own_place
from vm_migration.daemon.large_buffers import keep_large_buffers
from vm_migration.daemon.life import Life, run
from vm_migration.daemon.presence import presence
from vm_migration.handover.record import Record
from vm_migration.link.address import join_address, split_address
from vm_migration.link.server import AgentServer, Service


def main() -> None:
    """Run the daemon until it is told to stop."""
    parser = argparse.ArgumentParser(prog="viaduct-dest-agent", description=__doc__)
    parser.add_argument("--config", type=Path, help="viaduct.toml (also VIADUCT_CONFIG)")
    parser.add_argument("--insecure", action="store_true", help="plaintext, on loopback only (also VIADUCT_INSECURE=1)")
    parser.add_argument("--debug", action="store_true", help="tracebacks on errors")
    arguments = parser.parse_args()
    body = partial(serve, arguments.config, arguments.insecure)
    sys.exit(run("viaduct-dest-agent", body, debug=arguments.debug))


async def serve(config: Path | None, insecure: bool, life: Life) -> None:
    """Serve until the daemon is told to stop.

    Raises:
        InvalidDocument, InvalidInput: The configuration is not usable.
        Refused: The address is in use.
    """
    keep_large_buffers()
    configuration = load(config, os.environ, insecure=insecure)
    place = own_place(configuration)
    agent = DestAgent(
        host=place.host,
        state_dir=place.state_dir,
        run_dir=place.run_dir,
        memory_budget=place.memory_budget,
        after_active=_after_active(configuration, place),
    )
    service = DestinationService(agent, place.dest, bulk_address(place))
    services = [
        Service("vm_migration.api.v1.Host", partial(add_HostServicer_to_server, HostService(agent))),
        Service("vm_migration.api.v1.Destination", partial(add_DestinationServicer_to_server, service)),
        Service(BULK_SERVICE, partial(add_bulk, service)),
    ]
    await agent.recover()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AgentServer(place.dest, configuration.tls_files(), services))
        stack.push_async_callback(agent.stop)
        await stack.enter_async_context(presence(configuration, place.host, "dest"))
        life.ready(address=server.address, host=place.host)
        await life.stopped()
        await server.drain()


def bulk_address(place: HostPlace) -> str:
    """Return where bulk streams are sent: the migration network's address, at the agent's own port."""
    if not place.bulk:
        return place.dest
    if ":" in place.bulk:
        return place.bulk
    return join_address(place.bulk, split_address(place.dest)[1])


def _after_active(configuration: Configuration, place: HostPlace) -> AfterActive:
    async def hook(record: Record) -> None:
        point = HookPoint.AFTER_ACTIVE
        context = HookContext(attempt=record.attempt or "", machine=record.machine, epoch=record.epoch, host=place.host)
        await run_hooks(point, configuration.hooks.commands(point), context, configuration.hooks.deadline)

    return hook


if __name__ == "__main__":
    main()
