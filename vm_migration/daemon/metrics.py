"""Where a daemon tells its metrics: in a file, at an address, both or nowhere, as `[metrics]` says."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.configuration_sections import MetricsSection
from vm_migration.daemon.metrics_endpoint import metrics_endpoint
from vm_migration.daemon.metrics_file import metrics_file
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.gauges import Read, nothing_read


@asynccontextmanager
async def metrics(
    configuration: Configuration, daemon: Daemon, read: Read = nothing_read
) -> AsyncIterator[dict[str, str]]:
    """Tell them while the context is entered; yield, for whoever started the daemon, where they are told.

    Raises:
        InvalidInput: The address is not one of this machine, or is not loopback where no [tls] is configured.
        Refused: Another process listens there.
    """
    section, files = configuration.metrics, configuration.tls_files()
    told = {}
    async with AsyncExitStack() as stack:
        if (address := _address(section, daemon)) is not None:
            told["metrics"] = await stack.enter_async_context(metrics_endpoint(address, daemon, read, files))
        if section.folder is not None:
            await stack.enter_async_context(metrics_file(section.folder, daemon, read, files))
        yield told


def _address(section: MetricsSection, daemon: Daemon) -> str | None:
    match daemon:
        case Daemon.SOURCE:
            return section.source
        case Daemon.DEST:
            return section.dest
        case Daemon.ORCHESTRATOR:
            return section.orchestrator
