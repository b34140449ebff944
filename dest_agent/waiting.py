"""Connections that have not said which stream they are: how many there may be, and who makes way for one more. Pure.

::

    32 at a time -> the next one comes in, and of the host that has most of them, the one that has waited longest goes

So who says nothing keeps nobody out who does: a hello takes milliseconds, and to be overtaken meanwhile by 32 others of
one's own host takes thousands of connections a second.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

MOST_WAITING: Final = 32


def makes_way(waiting: Sequence[str], newcomer: str, most: int) -> int | None:
    """Return which one goes before another comes in; None while there is room for it.

    `waiting` are the hosts that they come from, the longest waiting first; `newcomer` is the host of the other.
    """
    if len(waiting) < most:
        return None
    crowd = Counter([*waiting, newcomer])
    worst = max(crowd[host] for host in waiting)
    return next(at for at, host in enumerate(waiting) if crowd[host] == worst)
