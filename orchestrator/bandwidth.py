"""How attempts share the bandwidth of hosts' migration networks: max-min fairness, by progressive filling. Pure.

::

    all attempts get more alike  ->  a link is full, or an attempt has what it asked for  ->  those stay, the rest go on

So no link carries more than its budget, and no attempt could get more but by taking it from one that has no more than
itself (Bertsekas and Gallager, Data Networks, 6.5.2). What a host sends and what it takes are two links.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

UNBOUNDED = 0
"""Of a rate: nothing bounds it."""
Link = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Flow:
    """One attempt between two hosts; `most` is what it asked for at most, in bytes a second, or UNBOUNDED."""

    attempt: str
    source: str
    destination: str
    most: int = UNBOUNDED

    @property
    def links(self) -> tuple[Link, Link]:
        """What it travels over."""
        return (self.source, "out"), (self.destination, "in")


def shares(flows: Iterable[Flow], budgets: Mapping[str, int]) -> dict[str, int]:
    """Return each attempt's bandwidth in bytes a second, at least 1, or UNBOUNDED where nothing bounds it.

    `budgets` are the bytes a second of each host's link, each way; a host without one bounds nothing.
    """
    left_open = {one.attempt: one for one in flows}
    users: dict[Link, dict[str, None]] = defaultdict(dict)
    for one in left_open.values():
        for link in one.links:
            if link[0] in budgets:
                users[link][one.attempt] = None
    left = {link: float(budgets[link[0]]) for link in users}
    rising = [(left[link] / len(using), link) for link, using in users.items()]
    rising += [(float(one.most), (one.attempt, "most")) for one in left_open.values() if one.most]
    heapq.heapify(rising)
    given: dict[str, int] = {}
    while rising:
        level, what = heapq.heappop(rising)
        if what in users:
            if not users[what]:
                continue
            if (fair := left[what] / len(users[what])) > level:  # some of its attempts got less, and left it more
                heapq.heappush(rising, (fair, what))
                continue
            settled = list(users[what])
        else:
            settled = [what[0]] if what[0] in left_open else []
        for attempt in settled:
            given[attempt] = max(1, int(level))
            for link in left_open.pop(attempt).links:
                if link in users:
                    del users[link][attempt]
                    left[link] = max(0.0, left[link] - level)
    return given | dict.fromkeys(left_open, UNBOUNDED)
