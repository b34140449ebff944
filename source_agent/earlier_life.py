"""An attempt that an earlier life of this agent left open before the release: its destination is asked first.

::

    OUTGOING   the guest runs meanwhile; a destination that is silent is waited for until the attempt's own deadline
    STOPPED    the guest stands still: one question, inside the bound of the pause, then ABORTED; so also where it was
               paused and the record of it was not written any more

What follows is vm_migration.handover.recovery's to decide. Where the two journals contradict each other, or one was
rolled back, the machine is paused and a person told, and the question is asked again; silence takes nothing of it back.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

from source_agent.account import Account
from source_agent.doubts import CONTRADICTION, keep_still
from source_agent.insisting import pause_before
from source_agent.looking import LOOK_DEADLINE, look
from vm_migration.errors import Stale
from vm_migration.handover.evidence import Absence, Process, SideView, view
from vm_migration.handover.recovery import Action, Decision, decide
from vm_migration.handover.states import State
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineError

_LONGEST_REST: Final = 5.0
_STOPPED_DEADLINE: Final = 1.0
"""The least bound of a pause; whoever stands still waits no longer for an answer."""


class EarlierLife:
    """Asks until the table decides; `rest` waits for so many seconds, or until somebody wants it to go on."""

    def __init__(self, account: Account, rest: Callable[[float], Awaitable[None]], over: Callable[[], bool]) -> None:
        self.unheard: Final = asyncio.Event()
        """A question has come to nothing; the answer may take long."""
        self._account: Final = account
        self._rest: Final = rest
        self._over: Final = over
        left = account.terms.left_ms(account.around.wall()) / 1000
        self._doubted = False
        self._deadline: Final = asyncio.get_running_loop().time() + left

    async def decided(self) -> tuple[Decision, SideView]:
        """Return what follows, and how the destination was seen.

        Raises:
            Stale: Somebody else has the machine's journal.
        """
        for retry in itertools.count():
            found = await self._asked_once()
            if found is not None:
                return found
            self.unheard.set()
            left = self._deadline - asyncio.get_running_loop().time()
            await self._rest(min(pause_before(retry, _LONGEST_REST), left if left > 0 else _LONGEST_REST))
        raise AssertionError("The count of retries has no end")

    async def _asked_once(self) -> tuple[Decision, SideView] | None:
        account = self._account
        record = account.record
        account.waiting(f"asks {record.peer} what it has of the machine, before the attempt is ended")
        stopped = record.state is State.STOPPED or await self._stands()
        try:
            async with account.link() as link:
                there = await look(link, account.key(), _STOPPED_DEADLINE if stopped else LOOK_DEADLINE)
        except Stale as error:
            await self._doubt(error.message)
            return None
        if self._doubted and there.sight is Absence.UNREACHABLE:
            return None
        here = view(record, account.attempt, record.epoch, account.custody.process())
        past = stopped or self._over() or asyncio.get_running_loop().time() >= self._deadline
        decision = decide(here, there, past_deadline=past, over_pause_bound=await self._over_bound())
        if Action.PAGE in decision.actions and Action.RETIRE_SOURCE not in decision.actions:
            await self._doubt(f"{decision.reason}: {record.state} here, {there.sight} at {record.peer}")
            return None
        if decision.actions == (Action.ASK,) and here.process is not Process.GONE:
            account.waiting(f"waits for {record.peer} to answer, for as long as the attempt may take; the guest runs")
            return None
        self._doubted = False
        account.doubts.settle(record.machine, CONTRADICTION)
        return decision, there

    async def _stands(self) -> bool:
        """Tell whether a guest that is to run stands still; one whose process does not answer is not said to."""
        if not self._account.record.was_running:
            return False
        try:
            async with asyncio.timeout(_STOPPED_DEADLINE):
                return not (await self._account.custody.answer()).running
        except (MachineError, TimeoutError):
            return False

    async def _doubt(self, text: str) -> None:
        account, self._doubted = self._account, True
        account.doubts.raise_(account.record.machine, CONTRADICTION, text)
        account.waiting(f"paused, a person must look: {text}")
        await keep_still(account.custody)

    async def _over_bound(self) -> bool:
        """Tell whether a stop has lasted for longer than its bound; where that cannot be told, it has."""
        record, port = self._account.record, self._account.custody.port
        if record.state is not State.STOPPED:
            return False
        try:
            async with asyncio.timeout(_STOPPED_DEADLINE):
                answer = await self._account.custody.answer()
                if answer.running or answer.pause != record.pause:
                    return True
                stop = await port.pause(for_attempt=True)  # which only tells, of a machine that stands still
        except (MachineError, TimeoutError):
            return True
        return loop_ns() - stop.last_executed_ns > record.pause_bound_ms * 1_000_000
