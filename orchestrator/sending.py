"""Which of the open attempts send: one that is prepared waits here until both of its hosts have a place for it.

::

    begun, a little ahead  ->  prepared  ->  waits here  ->  sends  ->  all of it is there: its place is another's

To start a machine's processes at its destination, and to touch its memory there, may take as long as to send it. Where
several machines leave a host, that is done for the next ones while others send (orchestrator.making_ready).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from orchestrator.attempt import Attempt, Phase
from orchestrator.making_ready import Preparations
from orchestrator.queueing import Slots, may_start

_DONE_SENDING: Final = frozenset({Phase.VERIFYING, Phase.RELEASING, Phase.HANDING_OVER})
_SENDING: Final = frozenset({Phase.BEGUN, Phase.PRE_COPY, Phase.STOPPING})


class Senders:
    """The attempts of one process that send, or wait for that. For one event loop."""

    def __init__(self, look: Callable[[], None]) -> None:
        """Call `look` when somebody begins to wait, and when a place comes free; `let` is to be called then."""
        self.preparations: Final = Preparations()
        self._look = look
        self._waiting: dict[str, asyncio.Event] = {}
        self._let: set[str] = set()
        self._sent: set[str] = set()

    async def turn(self, attempt: Attempt) -> None:
        """Return when a prepared attempt may send."""
        may = self._waiting[attempt.attempt] = asyncio.Event()
        self._look()
        try:
            await may.wait()
        finally:
            del self._waiting[attempt.attempt]

    def waits(self, attempt: Attempt) -> bool:
        """Say whether an attempt is prepared and waits for its turn."""
        return attempt.attempt in self._waiting and attempt.attempt not in self._let

    def let(self, running: Iterable[Attempt], slots: Slots, served: Mapping[str, float]) -> None:
        """Have those of all that run send that may now."""
        open_ones = list(running)
        names = {one.attempt for one in open_ones}
        self._let &= names
        self._sent &= names
        waiting = [one for one in open_ones if self.waits(one)]
        sending = [one for one in open_ones if self._sends(one)]
        begun = may_start(waiting, sending, slots, served)
        for one in begun:
            self._let.add(one.attempt)
            self._waiting[one.attempt].set()
        self.preparations.hear({one.source for one in (*sending, *begun)}, slots)

    def hear(self, attempt: Attempt) -> None:
        """Hear how one that runs stands: of all its reports, the first one since all of it is there frees a place."""
        if attempt.phase in _DONE_SENDING and attempt.outcome is None and attempt.attempt not in self._sent:
            self._sent.add(attempt.attempt)
            self._look()

    def _sends(self, attempt: Attempt) -> bool:
        if attempt.attempt in self._let:
            return attempt.phase not in _DONE_SENDING
        return attempt.phase in _SENDING  # begun by the driver before this one
