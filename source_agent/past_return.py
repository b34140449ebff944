"""What an attempt comes to once its machine is released: handed over, taken back, or given to another host.

The steps are source_agent.handing_over's; here is what follows from how the destination is seen. Nothing of it can be
cancelled, and a wait for the destination has no end but what its journal says.
"""

from dataclasses import replace
from typing import Final

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.doubts import CONTRADICTION, OUTRANKED, keep_still
from source_agent.ending import take_back
from source_agent.handing_over import Handed, Waiting, active_at, hand_over, retire, told_retired
from source_agent.looking import look
from source_agent.patience import Patience
from source_agent.progress import Phase
from source_agent.standstill import downtime_of
from source_agent.switchover import Ready
from vm_migration.errors import AttemptFailed, Stale
from vm_migration.handover.evidence import SideView, view
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import State

_NEWS_SECONDS: Final = 1.0
_ENDS: Final = frozenset({Action.RETIRE_SOURCE, Action.RECLAIM_SOURCE, Action.LOSE_SOURCE})


class PastReturn:
    """The last part of one attempt."""

    def __init__(self, account: Account, patience: Patience) -> None:
        self.told: bool = False
        """The new owner has heard that this host has retired its copy."""
        self._account: Final = account
        self._patience: Final = patience

    async def hand_over(self, link: DestinationLink, ready: Ready | None) -> None:
        """Give the secret away, and do what follows from what becomes of it; `ready` tells when the guest stopped."""
        account, record = self._account, self._account.custody.record
        account.enter(Phase.HANDING_OVER, f"hands the machine over to {record.peer}")
        waiting = Waiting(account.waiting, self._patience.rest, lambda: self._unclear(link))
        handed = await hand_over(link, account.key(), record.pause, bytes.fromhex(record.secret), waiting)
        if isinstance(handed, SideView) and handed.sight is State.LOST:
            state = await self._patience.insist(self._taken_back)
            text = "The destination lost its image before it took over"
            failure = AttemptFailed("destination-lost", text, "The machine stays at its source; try again")
            account.show_end(failure, state)
            return
        if isinstance(handed, SideView) and handed.sight is not State.ACTIVE:
            await self.taken_elsewhere(handed)
            return
        standstill = None
        if isinstance(handed, Handed) and ready is not None and record.was_running:
            standstill = downtime_of(ready, handed, account.around.boot_id)
        shown = replace(account.now, downtime=standstill, total_ms=account.elapsed_ms(), reason="frees the paused copy")
        account.put(shown)
        await self._patience.insist(lambda: retire(account.custody, active_at(account.key())))
        self.told = await told_retired(link, account.key(), _NEWS_SECONDS)
        account.show_completed()

    async def taken_elsewhere(self, owner: SideView) -> None:
        """Retire a copy of a machine that an operator has given to another host."""
        account = self._account
        await keep_still(account.custody)
        text = f"An operator gave the machine to another host, at epoch {owner.highest_epoch}"
        await self._patience.insist(lambda: retire(account.custody, owner, text))
        account.doubts.settle(account.record.machine, OUTRANKED)
        account.show_end(AttemptFailed("taken-elsewhere", text, "See: viaduct doctor"), State.RETIRED)

    async def _taken_back(self) -> State:
        async with self._account.alone():
            return await take_back(self._account.custody)

    async def _unclear(self, link: DestinationLink) -> SideView | None:
        """Look at a destination that did not take over as it was asked to; return it where that is an end."""
        account, record = self._account, self._account.record
        here = view(record, account.attempt, record.epoch, account.custody.process())
        try:
            there = await look(link, account.key())
        except Stale as error:
            account.doubts.raise_(record.machine, CONTRADICTION, error.message)
            return None
        decision = decide(here, there)
        if Action.PAGE in decision.actions and Action.RETIRE_SOURCE not in decision.actions:
            text = f"{decision.reason}: {record.state} here, {there.sight} at {record.peer}"
            account.doubts.raise_(record.machine, CONTRADICTION, text)
            account.waiting(f"a person must look: {text}")
            return None
        account.doubts.settle(record.machine, CONTRADICTION)
        if Action.RECOVER in decision.actions:
            account.waiting(f"{decision.reason}: viaduct recover --fenced {record.peer} --may-miss-writes")
        ended = _ENDS & set(decision.actions) and there.sight is not State.READY  # which is LOST once it is told
        return there if ended else None
