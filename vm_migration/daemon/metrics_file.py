"""A daemon's metrics as a file for Prometheus' node exporter (its textfile collector): no port, nobody to let in.

::

    folder/viaduct-dest-agent.prom    written anew every `EVERY` seconds, and gone when the daemon has ended in order

The certificate's end is that of the files as they lie there now, which every new connection shows.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.gauges import Read

EVERY: Final = 15.0
_log: Final = logs.get(__name__)


@asynccontextmanager
async def metrics_file(folder: Path, daemon: Daemon, read: Read, files: TlsFiles | None) -> AsyncIterator[None]:
    """Keep the file while the context is entered."""
    path = folder / f"{daemon}.prom"
    await _write(path, daemon, read, files)
    task = asyncio.create_task(_keep(path, daemon, read, files), name="metrics file")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(OSError):
            path.unlink()


async def _keep(path: Path, daemon: Daemon, read: Read, files: TlsFiles | None) -> None:
    while True:
        await asyncio.sleep(EVERY)  # the collector reads it as often as it likes
        await _write(path, daemon, read, files)


async def _write(path: Path, daemon: Daemon, read: Read, files: TlsFiles | None) -> None:
    # Imported where somebody collects only: other daemons start without it.
    from vm_migration.daemon.metrics_text import write_metrics  # noqa: PLC0415

    try:
        readings = await read()
        await asyncio.to_thread(write_metrics, path, daemon, readings, files)
    except OSError as error:  # nobody's machine depends on it
        _log.warning("metrics not written", path=str(path), reason=error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 - nor does a fault of ours in reading end the daemon, or the file
        _log.error("metrics not read", path=str(path), exc_info=error)
