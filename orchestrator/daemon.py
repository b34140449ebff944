"""The life of the daemon: the right to drive, store, agents, its turn, server, ready; and back in the other order."""

import contextlib
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Final

from orchestrator.api import NAME, OrchestratorService
from orchestrator.attempt import Attempt
from orchestrator.audit_place import audit_place
from orchestrator.leading import Leading, leading_alone, leading_in_turn
from orchestrator.readings import Transitions, store_readings
from orchestrator.site import store_path, surroundings
from orchestrator.store.claim import DAEMON
from orchestrator.store.etcd.leadership import Leadership
from orchestrator.store.etcd.rows import Keys
from orchestrator.store.exclusive import only_daemon
from orchestrator.surroundings import Surroundings
from vm_migration.api.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from vm_migration.daemon.audit_file import audit_file
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.life import Life
from vm_migration.daemon.metrics import metrics
from vm_migration.errors import InvalidInput
from vm_migration.link.address import split_address
from vm_migration.link.server import AgentServer, Service
from vm_migration.telemetry.daemons import Daemon

_SWITCH_SECONDS: Final = 0.0005
"""A thread that reads the store lets go of the interpreter with every row, and has it back after so long at most."""

_COLLECTED_AFTER: Final = 2_000


async def serve(configuration: Configuration, listen: str | None, life: Life) -> None:
    """Serve until the daemon is asked to stop.

    Raises:
        InvalidInput: No address to listen on, or one that is none.
        Refused: The address is in use, the store cannot be used, or another orchestrator drives what is in it.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    _collect_seldom()
    address = _address(configuration, listen)
    driver = _driver(configuration, address)
    async with (
        _right_to_drive(configuration),
        surroundings(configuration, driver) as around,
        _leading(configuration, _counted(around)) as leading,
        audit_file(audit_place(configuration, os.environ), "viaduct-orchestrator") as audit,
        metrics(configuration, Daemon.ORCHESTRATOR, store_readings(around.store, driver, leading)) as told,
        AgentServer(
            address,
            configuration.tls_files(),
            [Service(NAME, partial(add_OrchestratorServicer_to_server, OrchestratorService(leading, around.store)))],
            audit=audit.write,
            limits=configuration.server_limits(),
        ) as server,
    ):
        life.ready(address=server.address, **told)
        await life.stopped()
        await server.drain()


def _collect_seldom() -> None:
    """Have the interpreter look for cycles seldom, and not among what it has loaded.

    A look at all objects of hundreds of attempts takes longer than a transition may wait, and finds next to nothing.
    """
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, 10, 50)


def _address(configuration: Configuration, listen: str | None) -> str:
    """Return where to listen.

    Raises:
        InvalidInput: It is not said.
    """
    configured = configuration.site.orchestrators
    if listen or len(configured) == 1:
        return listen or configured[0]
    if configured:
        text, hint = "Several orchestrators are configured", "Say which one this is: --listen HOST:PORT"
    else:
        text, hint = (
            "No address to listen on is configured",
            "Set `[site] orchestrator`, or give --listen 127.0.0.1:7000",
        )
    raise InvalidInput("no-address", text, hint)


def _driver(configuration: Configuration, address: str) -> str:
    """Return how this daemon signs: those that share a store must differ, and one that comes back is the same again."""
    if configuration.etcd_place() is None:
        return DAEMON
    host = socket.gethostname().split(".")[0].lower() or "host"
    return f"{DAEMON}-{host}-{split_address(address)[1]}"


@contextlib.asynccontextmanager
async def _right_to_drive(configuration: Configuration) -> AsyncIterator[None]:
    """Hold what only one daemon may have: a file's lock. In etcd there may be several, which lead in turn."""
    if configuration.etcd_place() is None:
        with only_daemon(store_path(configuration.site.store, os.environ)):
            yield
    else:
        yield


@contextlib.asynccontextmanager
async def _leading(configuration: Configuration, around: Surroundings) -> AsyncIterator[Leading]:
    place = configuration.etcd_place()
    if place is None:
        async with leading_alone(around) as leading:
            yield leading
        return
    with contextlib.closing(Leadership(place, Keys(configuration.site.name).leader, around.driver)) as leadership:
        async with leading_in_turn(around, leadership) as leading:
            yield leading


def _counted(around: Surroundings) -> Surroundings:
    """Return surroundings in which each attempt's phases and end are counted."""
    transitions, tell = Transitions(), around.observe

    def observe(attempt: Attempt) -> None:
        transitions.note(attempt)
        tell(attempt)

    return replace(around, observe=observe)
