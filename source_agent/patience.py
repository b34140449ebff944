"""How long what must come to an end is waited for: as long as it takes, and no longer than somebody wants.

A journal that somebody else has opened is opened anew here, and the step that met it begun again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from source_agent.account import Account
from source_agent.insisting import insist
from vm_migration.errors import Stale
from vm_migration.telemetry import logs

_RENEWALS: Final = 4
_Result = TypeVar("_Result")
_log: Final = logs.get(__name__)


class Patience:
    """That of one attempt."""

    def __init__(self, account: Account) -> None:
        self._account: Final = account
        self._wanted: Final = asyncio.Event()

    def hurry(self) -> None:
        """Have whatever is waited for tried again now."""
        self._wanted.set()

    async def rest(self, seconds: float) -> None:
        """Wait for so many seconds, or until somebody wants it to go on."""
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    async def insist(self, step: Callable[[], Awaitable[_Result]]) -> _Result:
        """Repeat a step until it succeeds; where the journal must be opened anew, it is, and the step begun again.

        Raises:
            Stale: The machine has gone on without this attempt.
        """

        def tell(reason: str) -> None:
            self._account.waiting(f"not settled yet: {reason}")

        for _ in range(_RENEWALS):
            try:
                return await insist(step, tell, self.rest)
            except Stale as error:
                _log.warning("journal is opened anew", attempt=self._account.attempt, reason=error.message)
                await insist(self._account.renew, tell, self.rest)
        return await insist(step, tell, self.rest)
