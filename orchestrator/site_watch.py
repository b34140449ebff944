"""The site, looked at again and again: attempts from whoever tells of them, hosts from their own agents.

Hosts are asked beside the attempts, so that one that is silent keeps nothing else from being shown.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from orchestrator.attempt import Attempt
from orchestrator.driven_row import stopped
from orchestrator.host_standing import HostStanding
from orchestrator.learning import Listing
from orchestrator.site_view import SiteView, vanished
from vm_migration.errors import MigrationError, Refused, Unreachable

EVERY: Final = 1.0
"""Seconds between two looks at attempts."""
HOSTS_EVERY: Final = 5.0


AskHosts = Callable[[], Awaitable[Mapping[str, HostStanding]]]
"""Asks every host how it stands."""


class Told(Protocol):
    """Whoever tells of attempts: orchestrator.desk.Desk."""

    async def attempts(self, *, everything: bool) -> Listing:
        """Return open attempts, or all."""

    async def attempt(self, start: str) -> Attempt:
        """Return the attempt whose UUID starts so."""


class SiteWatch:
    """Looks at a site for as long as its views are taken."""

    def __init__(self, desk: Told, ask_hosts: AskHosts, clock: Callable[[], float], *, every: float = EVERY) -> None:
        """Take whom to ask. `clock` returns seconds since 1970."""
        self._desk: Final = desk
        self._ask_hosts: Final = ask_hosts
        self._clock: Final = clock
        self._every: Final = every
        self._hosts: tuple[HostStanding, ...] = ()
        self._heard: Final = asyncio.Event()

    async def views(self) -> AsyncGenerator[SiteView, None]:
        """Yield the site as it stands, for as long as somebody looks.

        Raises:
            MigrationError: Nobody could tell of attempts at the first look, or the own configuration is wrong.
        """
        before: SiteView | None = None
        async with contextlib.AsyncExitStack() as stack:
            asking = asyncio.create_task(self._look_at_hosts(), name="hosts of the site")
            stack.push_async_callback(stopped, asking)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * self._every):
                    await self._heard.wait()
            while True:
                if asking.done():
                    await asking  # which never ends well: the own configuration is wrong
                before = await self._view(before)
                yield before
                await asyncio.sleep(self._every)  # nothing of a site is pushed

    async def _view(self, before: SiteView | None) -> SiteView:
        now = self._clock()
        try:
            found = await self._desk.attempts(everything=False)
        except (Unreachable, Refused) as error:
            if before is None:
                raise
            return replace(before, at=now, hosts=self._hosts, ended=(), unheard=f"not told: {error.message}")
        attempts = {one.attempt: one for one in found.attempts}
        ended = await asyncio.gather(*(self._end(attempt) for attempt in vanished(before, attempts)))
        return SiteView(now, self._hosts, found.attempts, tuple(one for one in ended if one is not None))

    async def _end(self, attempt: str) -> Attempt | None:
        with contextlib.suppress(MigrationError):  # forgotten, or its host is silent by now
            return await self._desk.attempt(attempt)
        return None

    async def _look_at_hosts(self) -> None:
        while True:
            found = await self._ask_hosts()
            self._hosts = tuple(found.values())
            self._heard.set()
            await asyncio.sleep(HOSTS_EVERY)  # nothing of a host is pushed
