"""The site, looked at again and again: attempts from whoever tells of them, hosts from their own agents.

::

    each listing          which attempts are open       '
    at each change        those in flight, followed      >  what is known, a view a second
    each look at hosts    how every host stands         '

Each is asked for by itself, so that a frozen host, or an orchestrator that is away, keeps nothing else from being
shown; and a listing, for which the whole site is asked, is not made for every view.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from orchestrator.attempt import Attempt, Phase
from orchestrator.driven_row import stopped
from orchestrator.host_standing import HostStanding
from orchestrator.learning import Listing
from orchestrator.site_view import SiteView
from vm_migration.errors import MigrationError, Refused, Unreachable
from vm_migration.link.boundary import innermost

MOST_FOLLOWED: Final = 64
"""Attempts whose every change is heard; an orchestrator answers so many calls of one identity ([limits] calls)."""
MOST_ASKED: Final = 32
"""Hosts at a time."""
AskHost = Callable[[str], Awaitable[HostStanding]]
"""Asks a host how it stands."""


class Told(Protocol):
    """Whoever tells of attempts: orchestrator.desk.Desk."""

    async def attempts(self, *, everything: bool) -> Listing:
        """Return open attempts, or all."""

    async def attempt(self, start: str) -> Attempt:
        """Return the attempt whose UUID starts so."""

    def watch(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        """Yield it at each change until it ends."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two views, two listings of attempts, and two looks at the hosts."""

    view: float = 1.0
    listing: float = 5.0
    hosts: float = 5.0


class SiteWatch:
    """Looks at a site for as long as its views are taken."""

    def __init__(
        self, desk: Told, hosts: Sequence[str], ask: AskHost, clock: Callable[[], float], pace: Pace = Pace()
    ) -> None:
        """Take whom to ask for attempts, and how to ask which hosts. `clock` returns seconds since 1970."""
        self._desk: Final = desk
        self._names: Final = tuple(hosts)
        self._ask: Final = ask
        self._clock: Final = clock
        self._pace: Final = pace
        self._hosts: Final[dict[str, HostStanding]] = {}
        self._heard: Final = asyncio.Event()
        self._open: dict[str, Attempt] = {}
        self._ended: list[Attempt] = []
        self._unheard = ""
        self._followed: Final[dict[str, asyncio.Task[None]]] = {}

    async def views(self) -> AsyncGenerator[SiteView, None]:
        """Yield the site as it stands, for as long as somebody looks.

        Raises:
            MigrationError: Nobody could tell of attempts at the first look, or the own configuration is wrong.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._stop_following)
            hosts = asyncio.create_task(self._look_at_hosts(), name="hosts of the site")
            stack.push_async_callback(stopped, hosts)
            await self._list()
            listing = asyncio.create_task(self._keep_listing(), name="attempts of the site")
            stack.push_async_callback(stopped, listing)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.view):
                    await self._heard.wait()
            while True:
                for task in (hosts, listing):
                    if task.done():
                        await task  # which never ends well: the own configuration is wrong
                ended, self._ended = tuple(self._ended), []
                yield SiteView(
                    self._clock(),
                    tuple(self._hosts[name] for name in self._names if name in self._hosts),
                    tuple(self._open.values()),
                    ended,
                    self._unheard,
                )
                await asyncio.sleep(self._pace.view)  # a screen is read, not followed

    async def _look_at_hosts(self) -> None:
        turn = asyncio.Semaphore(MOST_ASKED)
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    for host in self._names:
                        group.create_task(self._look_at(host, turn), name=f"look at {host}")
            except* MigrationError as errors:
                raise innermost(errors) from None
            self._heard.set()
            await asyncio.sleep(self._pace.hosts)  # nothing of a host is pushed

    async def _look_at(self, host: str, turn: asyncio.Semaphore) -> None:
        async with turn:
            self._hosts[host] = await self._ask(host)

    async def _keep_listing(self) -> None:
        while True:
            await asyncio.sleep(self._pace.listing)  # nor is it told that an attempt was entered
            try:
                await self._list()
            except (Unreachable, Refused) as error:
                self._unheard = f"not told: {error.message}"
            else:
                self._unheard = ""

    async def _list(self) -> None:
        before = set(self._open)
        found = {one.attempt: one for one in (await self._desk.attempts(everything=False)).attempts}
        for attempt, row in found.items():
            followed = self._followed.get(attempt)
            if followed is None or followed.done():
                self._open[attempt] = row
                self._follow(row)
        for attempt in before - found.keys():
            if attempt in self._open and attempt not in self._followed:
                await self._look_for_the_end(attempt)

    def _follow(self, attempt: Attempt) -> None:
        if attempt.phase != Phase.QUEUED and len(self._followed) < MOST_FOLLOWED:
            task = asyncio.create_task(self._hear(attempt), name=f"news of {attempt.attempt}")
            self._followed[attempt.attempt] = task

    async def _hear(self, attempt: Attempt) -> None:
        try:
            with contextlib.suppress(MigrationError):  # the next listing tells whether it is still there
                async with contextlib.aclosing(self._desk.watch(attempt)) as changes:
                    async for now in changes:
                        self._note(now)
        finally:
            self._followed.pop(attempt.attempt, None)

    async def _look_for_the_end(self, attempt: str) -> None:
        try:
            self._note(await self._desk.attempt(attempt))
        except MigrationError:  # forgotten, or its host is silent by now
            self._open.pop(attempt, None)

    def _note(self, attempt: Attempt) -> None:
        known = self._open.pop(attempt.attempt, None)
        if not attempt.ended:
            self._open[attempt.attempt] = attempt
        elif known is not None:
            self._ended.append(attempt)

    async def _stop_following(self) -> None:
        tasks = list(self._followed.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
