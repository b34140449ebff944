"""An agent's own status over MQTT, where a broker is configured: online while it serves, offline after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.outbox import NOTHING
from vm_migration.daemon.status_publisher import StatusPublisher
from vm_migration.daemon.status_topics import Topics


@asynccontextmanager
async def presence(configuration: Configuration, host: str, side: Literal["source", "dest"]) -> AsyncIterator[None]:
    """Publish the agent's status while the context is entered; a dead broker changes nothing but a warning."""
    broker = configuration.broker()
    if broker is None:
        yield
        return
    topic = Topics(configuration.site.name).agent(host, side)
    async with StatusPublisher(broker, status_topic=topic, identifier=f"viaduct-agent-{host}-{side}", outbox=NOTHING):
        yield
