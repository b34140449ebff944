"""A driver without a broker: what lies in its outbox is told to nobody, and forgotten, so that attempts are, too.

Where a broker is configured later, it is told every state as it stands then; what happened before is history.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from orchestrator.driven_row import stopped
from orchestrator.store.claim import CLAIM_SECONDS, is_daemon
from orchestrator.store.store import Store
from vm_migration.errors import Refused
from vm_migration.telemetry import logs

FORGET_SECONDS: Final = 10.0
_AT_ONCE: Final = 10_000
_log: Final = logs.get(__name__)


@contextlib.asynccontextmanager
async def untold(store: Store, driver: str, clock: Callable[[], float]) -> AsyncIterator[None]:
    """Forget what this driver would tell, now and then and at the end; a daemon also what others left that are gone."""
    if is_daemon(driver):
        await asyncio.to_thread(store.adopt_outbox, driver, clock(), CLAIM_SECONDS)
    forgetting = asyncio.create_task(_keep_forgetting(store, driver), name="outbox without a broker")
    try:
        yield
    finally:
        await stopped(forgetting)
        await forget(store, driver)


async def forget(store: Store, driver: str) -> None:
    """Take what lies in a driver's outbox out of it."""
    try:
        rows = await asyncio.to_thread(store.pending, driver, _AT_ONCE)
        if rows:
            await asyncio.to_thread(store.acknowledge, driver, rows[-1].number)
    except Refused as error:  # the store rests: it is done the next time
        _log.warning("outbox is kept", code=error.code, reason=error.message)


async def _keep_forgetting(store: Store, driver: str) -> None:
    while True:
        await forget(store, driver)
        await asyncio.sleep(FORGET_SECONDS)  # entries come with every phase: a transaction for each would be too many
