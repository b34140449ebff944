"""The site, looked at again and again: attempts from whoever tells of them, hosts from their own agents.

::

    each listing          what is open in the store          '
    each full listing     and what only a host knows          >  what is known, a view a second
    at each change        those in flight, followed           |
    each look at hosts    how every host stands              '

Each is asked for by itself, so that a frozen host, or an orchestrator that is away, keeps nothing else from being
shown; a host that has not answered yet is named as such.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol

from orchestrator.attempt import Attempt, Notice, Phase
from orchestrator.driven_row import stopped
from orchestrator.evacuation.view import EvacuationView
from orchestrator.host_standing import HostStanding
from orchestrator.learning import NOT_ANSWERED_YET, Listing
from orchestrator.site_view import SiteView
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable, innermost

MOST_FOLLOWED: Final = 64
"""Attempts whose every change is heard; an orchestrator answers so many calls of one identity ([limits] calls)."""
MOST_ASKED: Final = 32
"""Hosts at a time."""
_NOT_YET: Final = "attempts are not told yet"
_NOT_BY_HOSTS: Final = "not every host has told of its attempts yet"
AskHost = Callable[[str], Awaitable[HostStanding]]
"""Asks a host how it stands."""


class ToldOfHosts(Protocol):
    """Whoever tells of what is done with whole hosts: orchestrator.evacuation.desk.EvacuationDesk."""

    async def all(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        """Return the open evacuations, or all."""

    async def find(self, start: str) -> EvacuationView:
        """Return the one whose identifier starts so."""

    async def maintenance(self) -> frozenset[str]:
        """Return the hosts in maintenance."""


class Told(Protocol):
    """Whoever tells of attempts: orchestrator.desk.Desk."""

    @property
    def evacuations(self) -> ToldOfHosts:
        """Whoever tells of what is done with whole hosts."""

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        """Return open attempts, or all; without asking the hosts, those of the store."""

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
        self._asked_at: Final[dict[str, float]] = {}
        self._heard: Final = asyncio.Event()
        self._listed: Final = asyncio.Event()
        self._listed_by_hosts: Final = asyncio.Event()
        self._open: dict[str, Attempt] = {}
        self._ended: list[Attempt] = []
        self._evacuations: dict[str, EvacuationView] = {}
        self._evacuations_ended: list[EvacuationView] = []
        self._maintenance = frozenset[str]()
        self._unheard = _NOT_YET
        self._unheard_by_hosts = _NOT_BY_HOSTS
        self._stored = frozenset[str]()
        self._known_to_hosts = frozenset[str]()
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
            listing = asyncio.create_task(self._keep_listing(), name="attempts of the site")
            stack.push_async_callback(stopped, listing)
            full = asyncio.create_task(self._keep_asking_hosts(), name="attempts of its hosts")
            stack.push_async_callback(stopped, full)
            await self._first_look(hosts, listing, full)
            while True:
                for task in (hosts, listing, full):
                    if task.done():
                        await task  # which never ends well: the own configuration is wrong
                yield self._view()
                await asyncio.sleep(self._pace.view)  # a screen is read, not followed

    async def _first_look(self, *tasks: asyncio.Task[None]) -> None:
        """Wait until everybody was heard, or one of the tasks has failed, or for as long as between two views."""

        async def everybody() -> None:
            for heard in (self._heard, self._listed, self._listed_by_hosts):
                await heard.wait()

        all_heard = asyncio.create_task(everybody(), name="first look")
        await asyncio.wait({all_heard, *tasks}, timeout=self._pace.view, return_when=asyncio.FIRST_COMPLETED)
        await stopped(all_heard)

    def _view(self) -> SiteView:
        ended, self._ended = tuple(self._ended), []
        evacuations, self._evacuations_ended = (*self._evacuations.values(), *self._evacuations_ended), []
        return SiteView(
            self._clock(),
            tuple(self._standings()),
            tuple(self._open.values()),
            ended,
            self._unheard or self._unheard_by_hosts,
            evacuations,
            self._maintenance,
        )

    def _standings(self) -> Iterator[HostStanding]:
        """Yield the hosts that are known, and those that were asked a while ago and have never answered."""
        late = asyncio.get_running_loop().time() - self._pace.view / 2
        for name in self._names:
            if name in self._hosts:
                yield self._hosts[name]
            elif self._asked_at.get(name, math.inf) <= late:
                yield HostStanding(name, (Notice(NOT_ANSWERED_YET, f"{name} has not answered yet"),))

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
            self._asked_at[host] = asyncio.get_running_loop().time()
            self._hosts[host] = await self._ask(host)

    async def _keep_listing(self) -> None:
        await self._list_store()
        while True:
            self._listed.set()
            await asyncio.sleep(self._pace.listing)  # it is not told that an attempt was entered
            try:
                await self._list_store()
            except (Unreachable, Refused) as error:
                self._unheard = f"not told: {error.message}"

    async def _keep_asking_hosts(self) -> None:
        await self._listed.wait()
        while True:
            try:
                found = await self._list(frozenset(self._open), hosts=True)
            except (Unreachable, Refused) as error:
                self._unheard_by_hosts = f"not told: {error.message}"
            else:
                self._unheard_by_hosts, self._known_to_hosts = "", found - self._stored
            self._listed_by_hosts.set()
            await asyncio.sleep(self._pace.listing)  # as above

    async def _list_store(self) -> None:
        self._stored = await self._list(self._open.keys() - self._known_to_hosts, hosts=False)
        self._known_to_hosts -= self._stored
        await self._list_evacuations()
        self._unheard = ""

    async def _list(self, before: Set[str], *, hosts: bool) -> frozenset[str]:
        """Take what is open now; of what was open `before` and is not any more, look for the end."""
        found = {one.attempt: one for one in (await self._desk.attempts(everything=False, hosts=hosts)).attempts}
        for attempt, row in found.items():
            followed = self._followed.get(attempt)
            if followed is None or followed.done():
                self._open[attempt] = row
                self._follow(row)
        for attempt in before - found.keys():
            if attempt in self._open and attempt not in self._followed:
                await self._look_for_the_end(attempt)
        return frozenset(found)

    async def _list_evacuations(self) -> None:
        told = self._desk.evacuations
        found = {one.evacuation: one for one in await told.all(everything=False)}
        for gone in self._evacuations.keys() - found.keys():
            with contextlib.suppress(InvalidInput):  # forgotten
                self._evacuations_ended.append(await told.find(gone))
            del self._evacuations[gone]
        self._evacuations = found
        self._maintenance = await told.maintenance()

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
