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
_ASKED = "asked"


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
    filling = _Filling(flows, budgets)
    rising = filling.levels()
    heapq.heapify(rising)
    given: dict[str, int] = {}
    while rising:
        level, what = heapq.heappop(rising)
        if (later := filling.later(what, level)) is not None:
            heapq.heappush(rising, (later, what))
            continue
        for attempt in filling.settle(what, level):
            given[attempt] = max(1, int(level))
    return given | dict.fromkeys(filling.open, UNBOUNDED)


class _Filling:
    """The flows that get more still, and what is left of each link; `what` is a link, or a flow and what it asked."""

    def __init__(self, flows: Iterable[Flow], budgets: Mapping[str, int]) -> None:
        self.open = {one.attempt: one for one in flows}
        self._users: dict[Link, dict[str, None]] = defaultdict(dict)
        for one in self.open.values():
            for link in one.links:
                if link[0] in budgets:
                    self._users[link][one.attempt] = None
        self._left = {link: float(budgets[link[0]]) for link in self._users}

    def levels(self) -> list[tuple[float, Link]]:
        """Return at which level each link is full, and each flow has what it asked for, as things stand."""
        full = [(self._left[link] / len(using), link) for link, using in self._users.items()]
        return full + [(float(one.most), (one.attempt, _ASKED)) for one in self.open.values() if one.most]

    def later(self, what: Link, level: float) -> float | None:
        """Return the level at which a link is full by now, where that is higher: some on it got less than others."""
        using = self._users.get(what)
        fair = self._left[what] / len(using) if using else 0.0
        return fair if fair > level else None

    def settle(self, what: Link, level: float) -> list[str]:
        """Let whoever is on a full link, or has what it asked for, have this level, and return them."""
        asked = [what[0]] if what[1] == _ASKED and what[0] in self.open else []
        settled = list(self._users[what]) if what in self._users else asked
        for attempt in settled:
            for link in self.open.pop(attempt).links:
                if link in self._users:
                    del self._users[link][attempt]
                    self._left[link] = max(0.0, self._left[link] - level)
        return settled
