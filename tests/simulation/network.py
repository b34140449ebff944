"""The network between simulated hosts: when a message arrives, if it does, and what becomes of those under way.

A message is a call's request, its answer, the news of its end, or one message of a stream. What is lost is lost as TCP
loses it: the connection is reset, or nothing comes any more until a deadline or a keepalive notices. A request can
arrive twice, the second time late, as after a retry below.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.simulation.serving import Endpoint
from tests.simulation.virtual_loop import VirtualLoop

KEEPALIVE: Final = 20.0
"""Seconds after which a connection that carries nothing is given up (vm_migration.link.channel)."""

Deliver = Callable[[], None]
Noted = Callable[[str, str], None]
"""Told of each fault that hits a message: its kind, and what the message was."""


@dataclass
class Weather:
    """How likely each message is lost, arrives twice or late; 0 everywhere is fair."""

    loss: float = 0.0
    twice: float = 0.0
    late: float = 0.0


class Network:
    """Hosts by name, and the addresses at which their processes serve."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop: Final = loop
        self.random: Final = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.endpoints: Final[dict[str, Endpoint]] = {}
        self.weather = Weather()
        self.off: Final[set[str]] = set()
        """Hosts without power: nothing comes from there, not even a refusal."""
        self.noted: Noted = lambda _kind, _what: None
        self.passed: Callable[[str, str, str], None] = lambda _source, _target, _what: None
        """Told of each message that is sent."""
        self._blocked: Final[dict[tuple[str, str], list[Callable[[], None]]]] = {}
        self._cut: Final[dict[object, tuple[str, str, Callable[[], None]]]] = {}

    def send(self, source: str, target: str, deliver: Deliver, what: str, *, after: float = 0.0) -> float:
        """Send a message that arrives, some time, `after` another one; return when."""
        self.passed(source, target, what)
        held = self._blocked.get((source, target))
        if held is not None:
            held.append(deliver)
            return after
        when = max(self.loop.time() + self._delay(source, target, what), after + 1e-6)
        self.loop.call_at(when, self._arrive, source, target, deliver)
        return when

    def is_lost(self, what: str) -> bool:
        """Draw whether a message is lost."""
        lost = self.weather.loss > 0 and self.random.random() < self.weather.loss
        if lost:
            self.noted("loss", what)
        return lost

    def comes_twice(self, what: str) -> bool:
        """Draw whether a request arrives a second time."""
        twice = self.weather.twice > 0 and self.random.random() < self.weather.twice
        if twice:
            self.noted("twice", what)
        return twice

    def is_up(self, host: str) -> bool:
        """Whether a host has power."""
        return host not in self.off

    # connections, which a partition that lasts ends

    def connected(self, key: object, source: str, target: str, cut: Callable[[], None]) -> None:
        """Remember a stream between two hosts, to be cut where nothing passes for long."""
        self._cut[key] = (source, target, cut)

    def disconnected(self, key: object) -> None:
        """Forget it."""
        self._cut.pop(key, None)

    def block(self, source: str, target: str) -> None:
        """Let nothing through in one direction from here on."""
        if (source, target) not in self._blocked:
            self._blocked[source, target] = []
            self.loop.call_later(KEEPALIVE, self._keepalive, source, target)

    def heal(self) -> None:
        """Let everything through; what was held up arrives now, or its connection is found reset."""
        blocked = list(self._blocked.items())
        self._blocked.clear()
        for (source, target), held in blocked:
            when = self.loop.time()
            for deliver in held:
                when += self.random.uniform(0.0001, 0.005)
                self.loop.call_at(when, self._arrive, source, target, deliver)

    def _keepalive(self, source: str, target: str) -> None:
        held = self._blocked.get((source, target))
        if held is None:
            return
        held.clear()
        for one, other, cut in list(self._cut.values()):
            if (one, other) in {(source, target), (target, source)}:
                cut()

    def _arrive(self, source: str, target: str, deliver: Deliver) -> None:
        if source not in self.off and target not in self.off:
            deliver()

    def _delay(self, source: str, target: str, what: str) -> float:
        if self.weather.late > 0 and self.random.random() < self.weather.late:
            self.noted("late", what)
            return self.random.choice((0.05, 0.5, 3.0, 12.0)) * self.random.random()
        if source == target:
            return self.random.uniform(0.00005, 0.0005)
        return self.random.uniform(0.0002, 0.002)
