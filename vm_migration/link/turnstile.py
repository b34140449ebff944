"""Where every call waits for its turn, so that no peer takes all the time and room that a daemon has.

::

    the peer has `calls` open already            -> turned away: too-many-calls
    it has called faster than `calls_per_second` -> waits for its turn, or is turned away where that is far off
    else                                         -> goes on at once

A host may call ten times as fast: each round of a migration is a call of its source, and must not wait. Who is turned
away learns nothing but that: it is as if nobody had answered, and nothing may be concluded from it. Peers on plaintext
cannot be told from each other; they have no pace.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from vm_migration.errors import Unreachable
from vm_migration.link.call_pace import CallPace
from vm_migration.link.identity import Identity, Role
from vm_migration.link.server_limits import ServerLimits
from vm_migration.telemetry.counts import TURNED_AWAY_CALLS

HOSTS_MAY: Final = 10


class TurnedAway(Unreachable):
    """A peer has too many calls, or too fast ones; this one is not looked at."""


class Turnstile:
    """The calls of each identity that have not ended, and when its next one may come."""

    def __init__(self, limits: ServerLimits) -> None:
        self._most: Final = limits.calls
        usual = limits.calls_per_second
        self._paces: Final = {role: CallPace(usual * (HOSTS_MAY if role is Role.HOST else 1)) for role in Role}
        self._open: Final[Counter[Identity | None]] = Counter()

    @asynccontextmanager
    async def passing(self, peer: Identity | None) -> AsyncIterator[None]:
        """Enter when it is a call's turn, and count it as open until the context is left.

        Raises:
            TurnedAway: The peer has too many; this one is not counted.
        """
        if self._open[peer] >= self._most:
            raise _turned_away(peer, f"has {self._most} calls open here already")
        self._open[peer] += 1
        try:
            await self._wait(peer)
            yield
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    async def _wait(self, peer: Identity | None) -> None:
        if peer is None:
            return
        seconds = self._paces[peer.role].turn(peer, asyncio.get_running_loop().time())
        if seconds is None:
            raise _turned_away(peer, "calls faster than it may")
        if seconds:
            await asyncio.sleep(seconds)


def _turned_away(peer: Identity | None, why: str) -> TurnedAway:
    TURNED_AWAY_CALLS.add("nobody" if peer is None else peer.role)
    who = "A peer on plaintext" if peer is None else peer.uri
    return TurnedAway("too-many-calls", f"{who} {why}", "Wait for calls to end, or raise [limits]")
