"""The life of the daemon: the right to drive, store, agents, queue, server, ready; and back in the other order."""

import os
from dataclasses import replace
from functools import partial
from typing import Final

from orchestrator.api import NAME, OrchestratorService
from orchestrator.attempt import Attempt
from orchestrator.audit_place import audit_place
from orchestrator.readings import Transitions, store_readings
from orchestrator.service import AttemptQueue
from orchestrator.site import store_path, surroundings
from orchestrator.store.exclusive import only_daemon
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from vm_migration.daemon.audit_file import audit_file
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.life import Life
from vm_migration.daemon.metrics import metrics
from vm_migration.errors import InvalidInput
from vm_migration.link.server import AgentServer, Service
from vm_migration.telemetry.daemons import Daemon

DRIVER: Final = "orchestrator"


async def serve(configuration: Configuration, listen: str | None, life: Life) -> None:
    """Serve until the daemon is asked to stop.

    Raises:
        InvalidInput: No address to listen on, or one that is none.
        Refused: The address is in use, the store cannot be used, or another orchestrator drives what is in it.
    """
    address = listen or configuration.site.orchestrator
    if not address:
        hint = "Set `[site] orchestrator`, or give --listen 127.0.0.1:7000"
        raise InvalidInput("no-address", "No address to listen on is configured", hint)
    with only_daemon(store_path(configuration.site.store, os.environ)):
        async with surroundings(configuration, DRIVER) as around, AttemptQueue(_counted(around), sole=True) as queue:
            servicer = OrchestratorService(queue, around.store)
            service = Service(NAME, partial(add_OrchestratorServicer_to_server, servicer))
            async with (
                audit_file(audit_place(configuration, os.environ), "viaduct-orchestrator") as audit,
                metrics(configuration, Daemon.ORCHESTRATOR, store_readings(around.store, DRIVER)) as told,
                AgentServer(
                    address,
                    configuration.tls_files(),
                    [service],
                    audit=audit.write,
                    limits=configuration.server_limits(),
                ) as server,
            ):
                life.ready(address=server.address, **told)
                await life.stopped()
                await server.drain()


def _counted(around: Surroundings) -> Surroundings:
    """Return surroundings in which each attempt's phases and end are counted."""
    transitions, tell = Transitions(), around.observe

    def observe(attempt: Attempt) -> None:
        transitions.note(attempt)
        tell(attempt)

    return replace(around, observe=observe)
