"""An operator's word: a whole image starts without its source's release, or no image is left anywhere.

::

    READY, or whole and finished now    source silent and vouched for     -> TAKEN above every epoch seen, then it runs
    ACTIVATING, its process gone        source's process gone, or its
                                        host silent and vouched for       -> LOST above every epoch seen

Everything else is refused, with what is needed. Asked again for what was done, it is answered with it.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

from dest_agent.holdings import Holdings
from dest_agent.sources import Sources, Word
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError, Refused, Unreachable, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import InstanceGone, Process
from vm_migration.handover.ownership import lost_by_word, match, run_confirmed, taken
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineError
from vm_migration.wire.attempt_key import attempt_key

_ASK_SECONDS: Final = 3.0
_AGAIN: Final = (0.5, 1.0, 2.0, 5.0, 10.0)

FinishNow = Callable[[], Awaitable[None]]
"""Repeats what the source asked for last of an arrival that is whole."""


class Taking:
    """Serves Destination.Take for one agent; the caller holds the machine's lock."""

    def __init__(self, host: str, holdings: Holdings, sources: Sources) -> None:
        self._host: Final = host
        self._holdings: Final = holdings
        self._sources: Final = sources

    async def take(self, request: types_pb2.TakeRequest, finish: FinishNow | None) -> Record:
        """Act on the word; TAKEN with the machine as it was owed, or LOST, is durable when this returns.

        Raises:
            Refused: What stands against it, and what is needed.
            Unresolved: TAKEN is durable, and the machine not confirmed to be as it is owed: ask again.
        """
        record = await self._holdings.last(request.key.machine)
        if record.state is State.LOST and record.attempt is None:
            return record
        if record.state is State.TAKEN and record.run_confirmed:
            return record
        if record.state is State.TAKEN:
            async with self._holdings.hold(record.machine) as custody:
                await custody.settle()  # it may have been written and not flushed
                return await _as_owed(custody)
        if request.key.attempt:
            match(record, attempt_key(request.key))
        word = await self._sources.ask(record, _ASK_SECONDS)
        async with self._holdings.hold(record.machine) as custody:
            if custody.record.state is State.ACTIVATING:
                return await self._lose(custody, request, word)
            return await self._take(custody, request, word, finish)

    async def _take(
        self, custody: Custody, request: types_pb2.TakeRequest, word: Word, finish: FinishNow | None
    ) -> Record:
        record = custody.record
        if record.state not in (State.PREPARED, State.READY) or not record.whole:
            text = f"{self._host} holds no whole image of machine {record.machine} that waits: it is {record.state}"
            raise Refused("nothing-to-take", text, "See who has it: viaduct doctor")
        if word.heard:
            text = f"{record.peer} answers, and its journal decides: it says {word.view.sight}"
            raise Refused("host-answers", text, "viaduct recover")
        _require_vouched(record, request, word)
        if custody.process() is not Process.ALIVE:
            text = f"The process of machine {record.machine} at {self._host} has ended: there is nothing to start"
            raise Refused("nothing-to-take", text, "Bring its source back")
        if record.state is State.PREPARED:
            await _finish(record, finish)
        answer = await custody.answer()
        reason = f"taken without the release of {record.peer}: {request.reason}"
        await custody.write(lambda last: taken(last, highest_seen=request.highest_seen, process=answer, reason=reason))
        return await _as_owed(custody)

    async def _lose(self, custody: Custody, request: types_pb2.TakeRequest, word: Word) -> Record:
        record = custody.record
        if custody.process() is not Process.GONE:
            text = f"Machine {record.machine} is being started at {self._host}, and its process has not ended"
            raise Refused("not-gone", text, "viaduct recover")
        if word.heard and word.view.process is not Process.GONE:
            text = f"{record.peer} answers, and has a copy of machine {record.machine} as of stop {record.pause}"
            hint = f"Start that one: viaduct recover --fenced {self._host} --may-miss-writes"
            raise Refused("image-at-source", text, hint)
        if not word.heard:
            _require_vouched(record, request, word)
        gone = InstanceGone(record.instance)
        reason = f"No image is left: {request.reason}"
        await custody.write(
            lambda last: lost_by_word(last, highest_seen=request.highest_seen, process=gone, reason=reason)
        )
        await custody.take_away(kill=True)
        return custody.record


async def insist(once: Callable[[], Awaitable[Record]]) -> None:
    """Act on a word of which nobody knows whether it was written, until that is known and done, or refused."""
    for pause in itertools.chain(_AGAIN, itertools.repeat(_AGAIN[-1])):
        await asyncio.sleep(pause)  # nobody tells when it can be asked again
        with contextlib.suppress(Unresolved, Unreachable):
            await once()
            return


def _require_vouched(record: Record, request: types_pb2.TakeRequest, word: Word) -> None:
    if record.peer not in (request.fenced, *request.also_off):
        text = f"{record.peer} may run machine {record.machine}, and nobody vouches that it is off ({word.silence})"
        raise Refused("not-fenced", text, f"Make sure that it is off, then: viaduct recover --fenced {record.peer}")


async def _finish(record: Record, finish: FinishNow | None) -> None:
    """Load and verify what is whole.

    Raises:
        Refused: It cannot be: the state of its processors was never kept on a disk, or it is damaged.
    """
    hint = f"Bring {record.peer} back"
    if finish is None:
        text = f"Machine {record.machine} is whole but for the state of its processors, which a restart has lost"
        raise Refused("not-finished", text, hint)
    try:
        await finish()
    except (MigrationError, MachineError) as error:
        raise Refused("not-finished", f"Machine {record.machine} cannot be finished: {error}", hint) from error


async def _as_owed(custody: Custody) -> Record:
    """Bring a machine that was taken to the run state that its attempt owes it."""
    record = custody.record
    try:
        if record.was_running:
            await custody.port.run(record.owned_epoch)
        else:
            await custody.port.stay_paused(record.owned_epoch)
        answer = await custody.answer()
        return await custody.write(lambda last: run_confirmed(last, answer))
    except MachineError as error:
        text = f"Machine {record.machine} is {record.state} and does not answer: {error}"
        raise Unresolved("run-state-owed", text, "Ask again: viaduct recover") from error
