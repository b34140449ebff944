"""An attempt as it stands now, for whoever does not drive it.

What somebody drives stands in the store. What nobody drives is asked of its source, which finishes alone; where it does
not answer, that is the reason shown, and after a while the answer: nothing waits for a silent host for ever.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace

from orchestrator.attempt import Attempt, with_report
from orchestrator.journals import end_in_journals
from orchestrator.store.claim import is_held
from orchestrator.surroundings import Surroundings
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable


async def as_it_stands(
    around: Surroundings, row: Attempt, silent: Mapping[str, MigrationError] | None = None
) -> Attempt:
    """Return an attempt with what its source says, where nobody drives it; who is silent is the reason.

    `silent` are hosts of which that is known; they are not asked.
    """
    try:
        return await _told(around, row, silent or {})
    except MigrationError as error:
        return replace(row, reason=f"nobody drives it, and its source does not tell: {error.message}")


async def changes(around: Surroundings, attempt: Attempt, every: float) -> AsyncGenerator[Attempt, None]:
    """Yield an attempt every so many seconds, until it ends or is left unresolved.

    Raises:
        Refused: Nobody drives it, and it had not begun.
        Unreachable: Nobody drives it, and its source was silent for the patience of the surroundings.
    """
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        row = await _known(around, attempt)
        try:
            row = await _told(around, row, {})
            heard = loop.time()
        except Unreachable as error:
            if loop.time() - heard > around.patience:
                raise
            row = replace(row, reason=f"asks again: {error.message}")
        yield row
        if row.ended or (row.outcome is not None and not is_held(row, around.clock())):
            return
        await asyncio.sleep(every)  # other processes write it


async def _known(around: Surroundings, attempt: Attempt) -> Attempt:
    try:
        return await asyncio.to_thread(around.store.get, attempt.attempt)
    except InvalidInput:  # only its hosts know it
        return attempt


async def _told(around: Surroundings, row: Attempt, silent: Mapping[str, MigrationError]) -> Attempt:
    if row.ended or is_held(row, around.clock()):
        return row
    if not row.epoch:
        raise Refused(
            "driver-gone",
            f"Nobody drives attempt {row.attempt}, and it had not begun ({row.phase})",
            f"End it: viaduct cancel {row.attempt}; or migrate again",
        )
    if row.source in silent:
        raise silent[row.source]
    try:
        return with_report(row, await around.agents.get_attempt(row.source, row.key()))
    except InvalidInput as error:  # its agent does not remember it; the journals may
        ended = await end_in_journals(around.agents, row, error)
    if ended is None:
        return replace(row, reason="nobody drives it, and its source does not remember it")
    return ended.attempt
