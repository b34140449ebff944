"""What an agent does beside its answers: hooks of a machine that has come to life, and steps that are insisted on."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from vm_migration.errors import MigrationError
from vm_migration.telemetry import logs

_GRACE: Final = 5.0
"""Seconds for what is under way when the agent ends: a machine that has just come to life may need its hooks."""
_log: Final = logs.get(__name__)


class Afterwards:
    """Keeps its tasks until they end; `stop` must be called."""

    def __init__(self) -> None:
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    def begin(self, work: Awaitable[None], name: str) -> None:
        """Begin something; a failure is logged and concerns nobody else."""

        async def run() -> None:
            try:
                await work
            except MigrationError as error:
                _log.warning("hook failed", reason=error.message)

        task = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give what is under way a moment, then end it."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_GRACE)
        for task in self._tasks:
            task.cancel()
