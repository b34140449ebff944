"""Whose turn it is with a machine: within one agent, one at a time acts on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from vm_migration.errors import Unreachable

TURN: Final = 15.0
"""Seconds for which a turn is waited for: most that is done to a machine, and a little. A Prepare may take longer, and
is asked about again."""


class Turns:
    """One lock for each machine that was ever acted on; waiting for one is bounded."""

    def __init__(self) -> None:
        self._locks: Final[dict[str, asyncio.Lock]] = {}

    @asynccontextmanager
    async def alone(self, machine: str) -> AsyncIterator[None]:
        """Let nobody else act on a machine for the length of the context.

        Raises:
            Unreachable: Somebody acts on it for longer than TURN seconds; nothing was done.
        """
        lock = self._locks.setdefault(machine, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN):
                await lock.acquire()
        except TimeoutError:
            text = f"Something else is done to machine {machine}, for more than {TURN:g} s"
            raise Unreachable("machine-busy", text, "Ask again") from None
        try:
            yield
        finally:
            lock.release()
