"""Holding an update in mode reboot at a boundary; before the attempt is open, as any update is held.

::

    boundary       the journal says           held by
    switching      OUTGOING                   the machine's process, frozen before it is asked to leave it
    ready          OUTGOING, or STOPPED       the agent, frozen as soon as the file lies there
    releasing      STOPPED, or RELEASED       the agent, frozen at the first record after that
    starting       RELEASED                   the new process, frozen while it starts from the files
    resuming       RECLAIMED                  the agent, frozen at that record: nothing has run yet

Whether the file lies there is looked at with the journal: while it does, nothing has run since the guest fell asleep.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tests.faults.holds import beginning, source_says
from tests.faults.rows import When
from tests.faults.trial import SOURCE, Trial
from tests.faults.update_holds import frozen_when, newcomer_of, preflight, says, thawed_until
from vm_migration.handover.states import State

_PAST_STOPPED = (State.STOPPED, State.RELEASED, State.RECLAIMED)


async def hold_reboot(trial: Trial, when: When) -> None:
    """Wait until the update is at a boundary, and keep it there.

    Raises:
        Missed: It did not come there, or went on.
    """
    await _HOLDS[when](trial)


async def _switching(trial: Trial) -> None:
    await beginning(trial)
    await thawed_until(trial, says(trial, (State.OUTGOING, *_PAST_STOPPED)))
    trial.freeze(trial.site.instance(SOURCE, trial.machine).vmm.pid)
    trial.thaw(trial.site.source(SOURCE).pid)
    await source_says(trial, "switching")


async def _ready(trial: Trial) -> None:
    await _switching(trial)
    agent = trial.site.source(SOURCE).pid
    left = asyncio.create_task(frozen_when(trial, agent, trial.waits_at.exists), name="the file")
    trial.thaw(trial.site.instance(SOURCE, trial.machine).vmm.pid)
    await left


async def _releasing(trial: Trial) -> None:
    await _ready(trial)
    await thawed_until(trial, says(trial, _PAST_STOPPED))


async def _starting(trial: Trial) -> None:
    trial.freeze(await newcomer_of(trial))


async def _resuming(trial: Trial) -> None:
    await _ready(trial)
    await thawed_until(trial, says(trial, (State.RECLAIMED,)))


_HOLDS: dict[When, Callable[[Trial], Awaitable[None]]] = {
    When.PREFLIGHT: preflight,
    When.BEGINNING: beginning,
    When.SWITCHING: _switching,
    When.READY: _ready,
    When.RELEASING: _releasing,
    When.STARTING: _starting,
    When.RESUMING: _resuming,
}
