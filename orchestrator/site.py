"""What the commands work with, made from the configuration: the agents, the store, the desk."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from orchestrator.agents import Agents, HostAddresses
from orchestrator.client import PEER, RemoteDesk
from orchestrator.desk import Desk, LocalDesk
from orchestrator.doors import Doors
from orchestrator.site_hooks import SiteHooks
from orchestrator.slot_book import configured_slots
from orchestrator.status import Publishing, publishing
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.store import Store
from orchestrator.surroundings import Surroundings, ignore
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.traces import tracing
from vm_migration.errors import InvalidInput
from vm_migration.link.renewed_channels import RenewedChannels
from vm_migration.link.server_limits import make_room

_SQLITE: Final = "sqlite://"
_OTHER_DESCRIPTORS: Final = 1024
_DESCRIPTORS_OF_A_HOST: Final = 4
"""Connections to both agents, and once more while certificates are renewed."""


def agents_of(configuration: Configuration) -> Agents:
    """Return the agents of the configured hosts.

    Raises:
        InvalidInput: No host is configured.
    """
    if not configuration.host:
        raise InvalidInput("no-hosts", "No host is configured", "Name the file with --config, with a [host.NAME] each")
    hosts = {name: HostAddresses(each.source, each.dest, each.transport) for name, each in configuration.host.items()}
    make_room(_OTHER_DESCRIPTORS + _DESCRIPTORS_OF_A_HOST * len(hosts))
    return Agents(hosts, configuration.tls_files())


def store_path(store: str | None, environment: Mapping[str, str]) -> Path:
    """Return the store's file: as configured, or in the user's state directory (XDG Base Directory, 3).

    Raises:
        InvalidInput: Not a SQLite store.
    """
    if not store:
        state = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local/state")
        return Path(state) / "viaduct" / "orchestrator.db"
    path = store.removeprefix(_SQLITE)
    if path == store or not path.startswith("/"):
        raise InvalidInput(
            "store-unsupported", f'Store "{store}" is no file', "Write sqlite:///absolute/path in `[site] store`"
        )
    return Path(path)


def open_store(configuration: Configuration) -> SqliteStore | EtcdStore:
    """Open the site's store. Blocks; give it a thread where others must go on.

    Raises:
        InvalidInput: The configuration names none that there is.
        Refused: It cannot be used.
    """
    place = configuration.etcd_place()
    if place is not None:
        return EtcdStore(place, configuration.site.name)
    return SqliteStore(store_path(configuration.site.store, os.environ))


def store_is_there(configuration: Configuration) -> bool:
    """Say whether somebody may have used the store: a file that is not there yet is made by whoever drives first."""
    return configuration.etcd_place() is not None or store_path(configuration.site.store, os.environ).exists()


def own_name() -> str:
    """Return how this process signs what it drives."""
    host = socket.gethostname().split(".")[0].lower() or "host"
    return f"cli-{host}-{os.getpid()}"


@contextlib.asynccontextmanager
async def surroundings(configuration: Configuration, driver: str) -> AsyncIterator[Surroundings]:
    """Open the store and the agents, and publish what this driver does."""
    site = configuration.site
    with await asyncio.to_thread(open_store, configuration) as store:
        async with (
            tracing(configuration, "viaduct-orchestrator"),
            agents_of(configuration) as agents,
            publishing(store, driver, site.name, configuration.broker(), time.time) as status,
        ):
            yield _around(configuration, store, agents, driver, status)


def _around(
    configuration: Configuration,
    store: Store,
    agents: Agents,
    driver: str,
    told: Publishing | None = None,
) -> Surroundings:
    return Surroundings(
        store,
        agents,
        SiteHooks(configuration),
        driver,
        time.time,
        observe=ignore if told is None else told.observe,
        observe_evacuation=ignore if told is None else told.observe_evacuation,
        slots=configured_slots(configuration),
        bandwidth={name: one.bandwidth for name, one in configuration.host.items() if one.bandwidth},
    )


@contextlib.asynccontextmanager
async def open_doors(configuration: Configuration) -> AsyncIterator[Doors]:
    """Open channels to the site's orchestrators, anew once certificates are; nothing is sent before the first call."""
    channels = RenewedChannels(configuration.tls_files())
    try:
        for address in configuration.site.orchestrators:
            channels.to(address, PEER)  # whoever has no usable certificate hears of it now
        yield Doors(configuration.site.orchestrators, lambda address: channels.to(address, PEER))
    finally:
        await channels.close()


@contextlib.asynccontextmanager
async def open_desk(configuration: Configuration, *, drives: bool = False) -> AsyncIterator[Desk]:
    """Open the daemon's desk where one is configured, else this process's own.

    Only a desk that drives publishes; one that reads tells nobody that it is there.
    """
    if configuration.site.orchestrators:
        async with open_doors(configuration) as doors:
            yield RemoteDesk(doors)
    elif drives:
        async with surroundings(configuration, own_name()) as around:
            yield LocalDesk(around, START_DAEMON)
    else:
        with await asyncio.to_thread(open_store, configuration) as store:
            async with agents_of(configuration) as agents:
                yield LocalDesk(_around(configuration, store, agents, own_name()), START_DAEMON)


async def hosts_in_maintenance(configuration: Configuration) -> frozenset[str]:
    """Return the hosts in maintenance, from the daemon where there is one, else from the store; none is made for it.

    Raises:
        Refused: Nobody can tell.
    """
    if not configuration.site.orchestrators and not store_is_there(configuration):
        return frozenset()
    async with open_desk(configuration) as desk:
        return await desk.evacuations.maintenance()


START_DAEMON: Final = "viaduct orchestrator --config FILE"
