"""Holding an update at a boundary: by freezing whoever would take the next step.

::

    boundary       the journal says           held by
    preflight      OWNER                      the agent, frozen when the row appears
    beginning      OWNER, or OUTGOING         the agent, frozen when the row says so
    starting       OUTGOING                   the new process, frozen while it starts
    prepared       OUTGOING                   the agent, frozen before it hears that the new process has prepared itself
    switching      OUTGOING                   then the new process, frozen instead: the guest stands still
    ready          OUTGOING                   then the agent, frozen before it hears that the other has everything
    releasing      STOPPED, or RELEASED       then the agent, frozen at the first record after that
    resuming       RECLAIMED                  the agent, frozen at that record
                   OUTGOING (exec)            the machine's process, frozen once it has begun to run the new program

Records follow one another within milliseconds: what the journal says in the end is read, and judged by.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

from orchestrator.attempt import Phase
from tests.faults.holds import beginning, source_says
from tests.faults.rows import Ordered, When
from tests.faults.trial import PATIENCE, SOURCE, Missed, Trial
from tests.faults.updated import becomes_another, newcomer, unheard, was_offered
from vm_migration.handover.states import State
from vm_migration.machine.run_directory import identify

_STILL_NS = 200_000_000
"""For so long a machine process has not answered that hands over: it waits for the other one."""


async def hold_update(trial: Trial, when: When) -> None:
    """Wait until the update is at a boundary, and keep it there.

    Raises:
        Missed: It did not come there, or went on.
    """
    await _HOLDS[when](trial)


async def preflight(trial: Trial) -> None:
    """Freeze the agent when the row appears."""
    await trial.until(lambda: trial.row_of_it() is not None, "a row")
    trial.freeze(trial.site.source(SOURCE).pid)
    await trial.until(lambda: (row := trial.row_of_it()) is not None and row.phase is not Phase.QUEUED, "the preflight")


async def _starting(trial: Trial) -> None:
    trial.freeze(await newcomer_of(trial))


async def _prepared(trial: Trial) -> None:
    new, agent = await newcomer_of(trial), trial.site.source(SOURCE).pid
    await trial.until(lambda: was_offered(new, trial.name), "the offer")
    trial.freeze(agent)
    await trial.until(lambda: unheard(new) > 0, "a process that has prepared itself")


async def _switching(trial: Trial) -> None:
    await _prepared(trial)
    new = await newcomer_of(trial)
    trial.freeze(new)
    trial.thaw(trial.site.source(SOURCE).pid)
    await source_says(trial, "switching")
    await trial.until(lambda: _silent(trial), "a guest that stands still")


async def _ready(trial: Trial) -> None:
    await _switching(trial)
    new = await newcomer_of(trial)
    trial.freeze(trial.site.source(SOURCE).pid)
    trial.thaw(new)
    await trial.until(lambda: unheard(new) > 0, "a process that has everything")


async def _releasing(trial: Trial) -> None:
    await _ready(trial)
    await thawed_until(trial, says(trial, (State.STOPPED, State.RELEASED, State.RECLAIMED)))


async def _resuming(trial: Trial) -> None:
    if trial.row.ordered is Ordered.TRANSFER:
        await _ready(trial)
        await thawed_until(trial, says(trial, (State.RECLAIMED,)))
        return
    await _prepared(trial)
    process = trial.site.instance(SOURCE, trial.machine).vmm.pid
    trial.thaw(trial.site.source(SOURCE).pid)
    await frozen_when(trial, process, lambda: becomes_another(process))


async def thawed_until(trial: Trial, holds: Callable[[], bool]) -> None:
    """Have the agent go on until something holds, and not a step further if that can be helped."""
    agent = trial.site.source(SOURCE).pid
    trial.thaw(agent)
    await frozen_when(trial, agent, holds)


async def frozen_when(trial: Trial, pid: int, holds: Callable[[], bool]) -> None:
    """Freeze a process as soon as something holds."""
    await asyncio.to_thread(_freeze_when, pid, holds)
    trial.frozen[pid] = identify(pid)


def _freeze_when(pid: int, holds: Callable[[], bool]) -> None:
    """Freeze a process at once when something holds; it is looked at without a pause, as milliseconds matter."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise Missed(f"It did not come within {PATIENCE:.0f} s")
    os.kill(pid, signal.SIGSTOP)


def says(trial: Trial, states: tuple[State, ...]) -> Callable[[], bool]:
    """Return what tells whether the machine's journal says one of these at this moment."""
    journal = trial.site.journals(SOURCE) / trial.machine

    def does() -> bool:
        last = journal.read_bytes().rpartition(b'"state":"')[2].partition(b'"')[0]
        return last.decode(errors="replace") in states

    return does


async def newcomer_of(trial: Trial) -> int:
    """Wait for the process that is to have the machine, or rehearses for it."""
    found: list[int] = []

    def there() -> bool:
        pid = newcomer(trial)
        found.extend([] if pid is None else [pid])
        return pid is not None

    await trial.until(there, "another process of the machine")
    return found[0]


def _silent(trial: Trial) -> bool:
    look = None if trial.sampler is None else trial.sampler.last(SOURCE)
    return look is not None and time.monotonic_ns() - look.answered_ns > _STILL_NS


_HOLDS: dict[When, Callable[[Trial], Awaitable[None]]] = {
    When.PREFLIGHT: preflight,
    When.BEGINNING: beginning,
    When.STARTING: _starting,
    When.PREPARED: _prepared,
    When.SWITCHING: _switching,
    When.READY: _ready,
    When.RELEASING: _releasing,
    When.RESUMING: _resuming,
}
