"""Which attempts are prepared at their destinations now: what can be sent at once is not held up by what is sent later.

::

    begun  ->  waits here  ->  Prepare  ->  waits for its turn  ->  sends

Two that are prepared on one machine's processors are there in a third of the time that six need. So for a host that
sends nothing yet, no more are prepared at a time than it may send and their destination may take; one that has its
destination for itself holds up nobody. Once a host sends, all its others are prepared beside that, and are there when
it is their turn.

A place is given on after a while though the attempt that has it is not prepared: a destination that is silent, or has
much memory to touch, keeps the wire idle for no longer.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from orchestrator.attempt import Attempt
from orchestrator.queueing import ONE_EACH_WAY, Slots

HELD_SECONDS: Final = 10.0
"""What it takes to touch some GiB, and a third of what a destination that is silent is waited for at least."""


def may_prepare(
    waiting: Iterable[Attempt], prepared: Iterable[Attempt], sending: Collection[str], slots: Slots
) -> Sequence[Attempt]:
    """Return those that may be prepared now, in order, beside those that are; `sending` are hosts that send."""
    first = [one for one in prepared if one.source not in sending]
    out, into = Counter(one.source for one in first), Counter(one.destination for one in first)
    chosen = list[Attempt]()
    for one in sorted(waiting, key=lambda one: (-one.priority, one.created_at, one.attempt)):
        if one.source not in sending:
            among_first = out[one.source] < slots.out_of(one.source)
            if into[one.destination] and not (among_first and into[one.destination] < slots.into(one.destination)):
                continue
            out[one.source] += 1
            into[one.destination] += 1
        chosen.append(one)
    return chosen


class Preparations:
    """The attempts of one process that are prepared, or wait for that. For one event loop."""

    def __init__(self, seconds: float = HELD_SECONDS) -> None:
        """Begin with no host that sends; another is let in for each that has had its place for so many seconds."""
        self._seconds: Final = seconds
        self._waiting: dict[str, tuple[Attempt, asyncio.Event]] = {}
        self._prepared: dict[str, tuple[Attempt, asyncio.TimerHandle]] = {}
        self._sending: Collection[str] = frozenset()
        self._slots = ONE_EACH_WAY

    @contextlib.contextmanager
    def one(self, attempt: Attempt) -> Iterator[asyncio.Event]:
        """Give what is set when an attempt may be prepared; leave the context when it is, or is given up."""
        let = asyncio.Event()
        self._waiting[attempt.attempt] = attempt, let
        self._look()
        try:
            yield let
        finally:
            self._waiting.pop(attempt.attempt, None)
            self._give_on(attempt.attempt)

    def hear(self, sending: Collection[str], slots: Slots) -> None:
        """Hear which hosts send, and how many each of them may."""
        self._sending, self._slots = sending, slots
        self._look()

    def _look(self) -> None:
        waiting = [one for one, _ in self._waiting.values()]
        prepared = [one for one, _ in self._prepared.values()]
        for one in may_prepare(waiting, prepared, self._sending, self._slots):
            _, let = self._waiting.pop(one.attempt)
            in_time = asyncio.get_running_loop().call_later(self._seconds, self._give_on, one.attempt)
            self._prepared[one.attempt] = one, in_time
            let.set()

    def _give_on(self, attempt_id: str) -> None:
        """Give an attempt's place to the next, if it has one: it is prepared, given up, or takes long."""
        if (held := self._prepared.pop(attempt_id, None)) is not None:
            _, in_time = held
            in_time.cancel()
            self._look()
