"""Connections that have not said which stream they are: how many there may be, and who makes way for one more.

::

    a place is free -> the next one comes in
    none is         -> of the network that has most of them, of its host that has most, the one that waited longest goes

As many as the streams that an attempt may have, or as half of the places, are not many: a source that opens all of its
own is not the one that has most where a crowd comes from many hosts, one connection each. An IPv6 network is a /64,
where anybody may have all addresses; an IPv4 host is a network by itself. So who says nothing keeps nobody out who
does: a hello takes milliseconds; to be overtaken meanwhile by all the others takes thousands of connections a second.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, Self

from dest_agent.admission import MOST_STREAMS

_HOST_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection comes from."""

    host: str
    network: str

    @classmethod
    def of(cls, host: str) -> Self:
        """Return it for a numeric address, as the kernel tells it."""
        address = ip_address(host)
        if not isinstance(address, IPv6Address):
            return cls(host, host)
        if address.ipv4_mapped is not None:
            return cls(host, str(address.ipv4_mapped))
        prefix = int(address) >> _HOST_BITS << _HOST_BITS
        return cls(host, f"{IPv6Address(prefix)}/{_HOST_BITS}")


def makes_way(waiting: Sequence[Origin], newcomer: Origin, most: int) -> int | None:
    """Return which one goes before another comes in; None while there is room for it. Pure.

    `waiting` are where they come from, the longest waiting first; `newcomer` is the origin of the other.
    """
    if len(waiting) < most:
        return None
    everybody, few = [*waiting, newcomer], min(MOST_STREAMS, most // 2)
    networks, hosts = Counter(each.network for each in everybody), Counter(each.host for each in everybody)
    crowds = [(max(few, networks[each.network]), max(few, hosts[each.host])) for each in waiting]
    return crowds.index(max(crowds))


class WaitingRoom:
    """The tasks that serve them, the longest waiting first."""

    def __init__(self, most: int) -> None:
        """Let so many wait, at least 1."""
        self.most = most
        self._waiting: Final[dict[asyncio.Task[None], Origin]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def enter(self, task: "asyncio.Task[None]", origin: Origin) -> str:
        """Take one in; return the host of the one that was cancelled for it, or nothing."""
        gone = makes_way(list(self._waiting.values()), origin, self.most)
        told = ""
        if gone is not None:
            making_way = list(self._waiting)[gone]
            told = self._waiting.pop(making_way).host
            making_way.cancel()
        self._waiting[task] = origin
        return told

    def leave(self, task: "asyncio.Task[None]") -> None:
        """Let one out, if it is here."""
        self._waiting.pop(task, None)
