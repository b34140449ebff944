"""`viaduct-source-agent`: the daemon of a host that creates machines and lets them go."""

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from source_agent.agent import SourceAgent
from source_agent.machines_service import HostService, MachinesService
from source_agent.outgoing_attempt import Surroundings
from source_agent.source_service import SourceService
from vm_migration.api.v1.machine_pb2_grpc import add_HostServicer_to_server, add_MachinesServicer_to_server
from vm_migration.api.v1.source_pb2_grpc import add_SourceServicer_to_server
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.daemon.hooks import HookContext, HookPoint, run_hooks
from vm_migration.daemon.host_place import HostPlace, own_place
from vm_migration.daemon.large_buffers import keep_large_buffers
from vm_migration.daemon.life import Life, run
from vm_migration.daemon.presence import presence
from vm_migration.link.server import AgentServer, Service
from vm_migration.transfer.hash_rate import measure_hashing


def main() -> None:
    """Run the daemon until it is told to stop."""
    parser = argparse.ArgumentParser(prog="viaduct-source-agent", description=__doc__)
    parser.add_argument("--config", type=Path, help="viaduct.toml (also VIADUCT_CONFIG)")
    parser.add_argument("--insecure", action="store_true", help="plaintext, on loopback only (also VIADUCT_INSECURE=1)")
    parser.add_argument("--debug", action="store_true", help="tracebacks on errors")
    arguments = parser.parse_args()
    body = partial(serve, arguments.config, arguments.insecure)
    sys.exit(run("viaduct-source-agent", body, debug=arguments.debug))


async def serve(config: Path | None, insecure: bool, life: Life) -> None:
    """Serve until the daemon is told to stop.

    Raises:
        InvalidDocument, InvalidInput: The configuration is not usable.
        Refused: The address is in use.
    """
    keep_large_buffers()
    configuration = load(config, os.environ, insecure=insecure)
    place = own_place(configuration)
    agent = SourceAgent(
        host=place.host,
        state_dir=place.state_dir,
        run_dir=place.run_dir,
        memory_budget=place.memory_budget,
        hash_bytes_per_s=measure_hashing(time.perf_counter),
        surroundings=_surroundings(configuration, place),
    )
    services = [
        Service("vm_migration.api.v1.Host", partial(add_HostServicer_to_server, HostService(agent))),
        Service("vm_migration.api.v1.Machines", partial(add_MachinesServicer_to_server, MachinesService(agent))),
        Service("vm_migration.api.v1.Source", partial(add_SourceServicer_to_server, SourceService(agent))),
    ]
    await agent.recover()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AgentServer(place.source, configuration.tls_files(), services))
        stack.push_async_callback(agent.stop)
        await stack.enter_async_context(presence(configuration, place.host, "source"))
        life.ready(address=server.address, host=place.host)
        await life.stopped()
        await server.drain()


def _surroundings(configuration: Configuration, place: HostPlace) -> Callable[[str, str, int], Surroundings]:
    hash_bytes_per_s = measure_hashing(time.perf_counter)

    def make(attempt: str, machine: str, epoch: int) -> Surroundings:
        context = HookContext(attempt=attempt, machine=machine, epoch=epoch, host=place.host)
        return Surroundings(
            tls=configuration.tls_files(),
            before_handoff=_before_handoff(configuration, context),
            hash_bytes_per_s=hash_bytes_per_s,
        )

    return make


def _before_handoff(configuration: Configuration, context: HookContext) -> Callable[[], Awaitable[None]]:
    async def hook() -> None:
        point = HookPoint.BEFORE_HANDOFF
        await run_hooks(point, configuration.hooks.commands(point), context, configuration.hooks.deadline)

    return hook


if __name__ == "__main__":
    main()
