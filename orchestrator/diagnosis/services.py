"""Whether the store, the orchestrator daemon and the broker can be used: each is asked, none is changed."""

import asyncio
from dataclasses import dataclass
from typing import Final

from orchestrator.client import RemoteDesk
from orchestrator.diagnosis.finding import Code, Finding
from orchestrator.site import open_doors, open_store, own_name, store_is_there
from orchestrator.store.store import STORE_UNUSABLE
from vm_migration.daemon import mqtt
from vm_migration.daemon.broker_url import Broker
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.mqtt_version import BrokerGone, find_version
from vm_migration.daemon.status_documents import presence_message
from vm_migration.daemon.status_topics import Topics
from vm_migration.errors import MigrationError

_BROKER_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Orchestrator:
    """What came of asking the orchestrators, and whether that tells of their store too."""

    finding: Finding | None
    of_the_store: bool


async def service_findings(configuration: Configuration) -> tuple[Finding, ...]:
    """Return what cannot be used. Of a store in etcd the orchestrators tell: nobody else need be let in there."""
    orchestrator, broker = await asyncio.gather(_orchestrator(configuration), _broker(configuration))
    told = orchestrator.of_the_store and configuration.etcd_place() is not None
    store = None if told else await _store(configuration)
    return tuple(finding for finding in (store, orchestrator.finding, broker) if finding is not None)


async def _store(configuration: Configuration) -> Finding | None:
    try:
        if store_is_there(configuration):
            await asyncio.to_thread(_read_store, configuration)
    except MigrationError as error:
        return Finding(Code.STORE_UNUSABLE, error.message, error.hint)
    return None


def _read_store(configuration: Configuration) -> None:
    with open_store(configuration) as store:
        store.attempts()


async def _orchestrator(configuration: Configuration) -> _Orchestrator:
    if not configuration.site.orchestrators:
        return _Orchestrator(None, of_the_store=False)
    try:
        async with open_doors(configuration) as doors:
            await RemoteDesk(doors).attempts(everything=False)
            silent = await doors.silent()
    except MigrationError as error:
        if error.code == STORE_UNUSABLE:
            return _Orchestrator(Finding(Code.STORE_UNUSABLE, error.message, error.hint), of_the_store=True)
        hint = error.hint or "Start it: viaduct orchestrator"
        text = f"The site's orchestrator cannot be asked: {error.message}"
        return _Orchestrator(Finding(Code.ORCHESTRATOR_SILENT, text, hint), of_the_store=False)
    if not silent:
        return _Orchestrator(None, of_the_store=True)
    text = f"The orchestrator at {' and at '.join(silent)} does not answer: nobody would follow the one that leads"
    hint = "Start it: viaduct orchestrator --listen HOST:PORT"
    return _Orchestrator(Finding(Code.ORCHESTRATOR_SILENT, text, hint), of_the_store=True)


async def _broker(configuration: Configuration) -> Finding | None:
    broker = configuration.broker()
    if broker is None:
        return None
    try:
        async with asyncio.timeout(_BROKER_SECONDS):
            await _greeted(broker, configuration.site.name)
    except (BrokerGone, TimeoutError) as error:
        reason = str(error) or f"{broker} does not answer"
        text = f"The broker cannot be used: {reason}; migrations go on, and nobody is told of them"
        hint = "Start it, or correct `[site] mqtt` and [mqtt] in the configuration"
        return Finding(Code.BROKER_UNREACHABLE, text, hint)
    return None


async def _greeted(broker: Broker, site: str) -> None:
    """Connect as a driver would, and go in peace: nothing is published."""
    name = own_name()
    will = presence_message(Topics(site).orchestrator(name), "offline", session="")
    async with mqtt.connect(broker, name, will, await find_version(broker, None)):
        return
