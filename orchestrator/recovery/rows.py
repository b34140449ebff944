"""The orchestrator's own half: open attempts that nobody drives any more are claimed and driven to their end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from orchestrator.attempt import Attempt
from orchestrator.drive import Drive
from orchestrator.driven_row import give_back
from orchestrator.recovery.steps import Outcome, Step, Unsettled
from orchestrator.store.claim import is_held
from orchestrator.surroundings import Surroundings
from vm_migration.errors import MigrationError, Refused

PATIENCE_SECONDS: Final = 5.0

Of = Callable[[Attempt], bool]


async def close_rows(around: Surroundings, wanted: Of) -> Outcome:
    """Drive every open attempt on that nobody drives; each ends, or stays unresolved with its reason.

    Raises:
        Refused: The store cannot be used.
    """
    rows = await asyncio.to_thread(around.store.attempts)
    left = [row for row in rows if wanted(row) and not is_held(row, around.clock())]
    patient = replace(around, patience=PATIENCE_SECONDS)
    found = await asyncio.gather(*(_closed(patient, row) for row in left))
    return Outcome(
        tuple(step for step, _ in found if step is not None),
        tuple(unsettled for _, unsettled in found if unsettled is not None),
    )


async def _closed(around: Surroundings, row: Attempt) -> tuple[Step | None, Unsettled | None]:
    try:
        claimed = await asyncio.to_thread(around.store.claim, row.attempt, around.driver, around.clock())
    except Refused:  # somebody else has just taken it over
        return None, None
    drive = Drive(claimed, around)
    try:
        ended = await drive.run()
    except MigrationError as error:
        return None, Unsettled(row.machine, row.name, f"Attempt {row.attempt[:8]}: {error.message}", error.hint)
    except asyncio.CancelledError:
        give_back(around.store, drive.attempt)
        raise
    if not ended.ended:
        why = ended.error.message if ended.error is not None else "nobody knows how it ended"
        hint = "Start the agents that it names, then: viaduct recover"
        return None, Unsettled(row.machine, row.name, f"Attempt {row.attempt[:8]} is open: {why}", hint)
    message = f"attempt {row.attempt[:8]} {row.source} -> {row.destination}: {ended.outcome}"
    return Step(row.machine, row.name, ended.source, "close-attempt", message), None
