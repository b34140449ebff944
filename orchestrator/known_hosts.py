"""How hosts stood when they were last heard, and what was sent there since: what a choice among many hosts rests on.

::

    heard less than FRESH_SECONDS ago    as it stood then, with what was chosen for it since on its way there
    else                                 asked again, once for all who want to know meanwhile

A choice is a preference: the host that is chosen is asked about the machine itself, and has the last word. A thousand
hosts are not asked anew for each of fifty machines, and fifty choices at a time do not all fall on one host.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from orchestrator.agents import Agents
from orchestrator.choice import after_arrival
from orchestrator.hearing import standings_to_take
from orchestrator.host_standing import HostStanding

FRESH_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Known:
    """One host; `coming` is the memory of each machine that was chosen for it since it was heard."""

    standing: HostStanding
    heard: float
    coming: dict[object, int] = field(default_factory=dict)

    def now(self) -> HostStanding:
        standing = self.standing
        for ram_bytes in self.coming.values():
            standing = after_arrival(standing, ram_bytes)
        return standing


class KnownHosts:
    """What one process knows of its hosts."""

    def __init__(self, agents: Agents) -> None:
        """Know nothing yet."""
        self._agents: Final = agents
        self._known: Final[dict[str, _Known]] = {}
        self._asking: Final[dict[str, asyncio.Task[None]]] = {}
        self._considered: Final[set[object]] = set()
        self._first = ""

    async def standings(self, hosts: Iterable[str]) -> dict[str, HostStanding]:
        """Return how some hosts stand, by the word of their destination agents: one connection a host.

        Raises:
            InvalidInput: The own configuration is wrong: an address, or the TLS files.
        """
        names = list(hosts)
        stale = [host for host in names if host not in self._asking and not self._fresh(host)]
        if stale:
            task = asyncio.create_task(self._ask(stale), name=f"ask {len(stale)} hosts how they stand")
            self._asking.update(dict.fromkeys(stale, task))
            task.add_done_callback(_heard_of)
        for task in {self._asking[host] for host in names if host in self._asking}:
            await asyncio.shield(task)  # others may wait for it as well
        return {host: self._known[host].now() for host in names}

    def in_rotation(self, hosts: Iterable[str]) -> list[str]:
        """Return hosts in the order in which they are looked at: by name, from where a search begins now."""
        return sorted(hosts, key=lambda host: (host < self._first, host))

    def begin_at(self, host: str) -> None:
        """Have searches begin at a host from now on: those before it have enough to do."""
        self._first = host

    @contextlib.contextmanager
    def considering(self, hosts: Iterable[str], ram_bytes: int) -> Iterator[Callable[[str], None]]:
        """Have a machine count as on its way to some hosts while they are asked, and after that to the one chosen."""
        token, chosen = object(), ""

        def choose(host: str) -> None:
            nonlocal chosen
            chosen = host

        asked = [host for host in hosts if host in self._known]
        self._considered.add(token)
        for host in asked:
            self._known[host].coming[token] = ram_bytes
        try:
            yield choose
        finally:
            self._considered.discard(token)
            for host in asked:
                if host != chosen:
                    self._known[host].coming.pop(token, None)

    def _fresh(self, host: str) -> bool:
        known = self._known.get(host)
        return known is not None and asyncio.get_running_loop().time() - known.heard < FRESH_SECONDS

    async def _ask(self, hosts: list[str]) -> None:
        asked = asyncio.get_running_loop().time()
        try:
            for host, standing in (await standings_to_take(self._agents, hosts)).items():
                before = self._known.get(host)
                coming = {} if before is None else before.coming
                kept = {token: ram for token, ram in coming.items() if token in self._considered}
                self._known[host] = _Known(standing, asked, kept)
        finally:
            for host in hosts:
                del self._asking[host]


def _heard_of(task: "asyncio.Task[None]") -> None:
    """Look at a task's error: whoever waited for it has it, and may be gone."""
    if not task.cancelled():
        task.exception()
