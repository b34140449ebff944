"""Connections that have not said which stream they are: how many there may be, and who makes way for one more.

::

    a place is free -> the next one comes in
    none is         -> of the host that has most of them, the one that has waited longest goes

So who says nothing keeps nobody out who does: a hello takes milliseconds, and to be overtaken meanwhile by all others
of one's own host takes thousands of connections a second.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final


def makes_way(waiting: Sequence[str], newcomer: str, most: int) -> int | None:
    """Return which one goes before another comes in; None while there is room for it. Pure.

    `waiting` are the hosts that they come from, the longest waiting first; `newcomer` is the host of the other.
    """
    if len(waiting) < most:
        return None
    crowd = Counter([*waiting, newcomer])
    worst = max(crowd[host] for host in waiting)
    return next(at for at, host in enumerate(waiting) if crowd[host] == worst)


class WaitingRoom:
    """The tasks that serve them, the longest waiting first."""

    def __init__(self, most: int) -> None:
        """Let so many wait, at least 1."""
        self.most = most
        self._waiting: Final[dict[asyncio.Task[None], str]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def enter(self, task: "asyncio.Task[None]", host: str) -> str:
        """Take one in; return the host of the one that was cancelled for it, or nothing."""
        gone = makes_way(list(self._waiting.values()), host, self.most)
        told = ""
        if gone is not None:
            making_way = list(self._waiting)[gone]
            told = self._waiting.pop(making_way)
            making_way.cancel()
        self._waiting[task] = host
        return told

    def leave(self, task: "asyncio.Task[None]") -> None:
        """Let one out, if it is here."""
        self._waiting.pop(task, None)
