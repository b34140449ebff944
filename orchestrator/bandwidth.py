"""How attempts share the bandwidth of hosts' migration networks: max-min fairness, by progressive filling. Pure.

::

    all attempts get more alike  ->  a link is full, or an attempt has what it asked for  ->  those stay, the rest go on

So no link carries more than its budget, and no attempt could get more but by taking it from one that has no more than
itself (Bertsekas and Gallager, Data Networks, 6.5.2). What a host sends and what it takes are two links.
"""

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
    open_flows = {one.attempt: one for one in flows}
    given: dict[str, int] = {}
    left = {link: float(budgets[link[0]]) for one in open_flows.values() for link in one.links if link[0] in budgets}
    while open_flows:
        users = {link: [one for one in open_flows.values() if link in one.links] for link in left}
        fair = {link: left[link] / len(using) for link, using in users.items() if using}
        level = min([*fair.values(), *(float(one.most) for one in open_flows.values() if one.most)], default=None)
        if level is None:
            return given | dict.fromkeys(open_flows, UNBOUNDED)
        full = {link for link, share in fair.items() if share <= level}
        settled = [
            one
            for one in open_flows.values()
            if (one.most and one.most <= level) or any(link in full for link in one.links)
        ]
        for one in settled:
            del open_flows[one.attempt]
            given[one.attempt] = max(1, int(level))
            for link in one.links:
                if link in left:
                    left[link] = max(0.0, left[link] - level)
    return given
