"""Attempts that nobody drives any more, brought to their end by whoever meets them, where that takes seconds."""

import asyncio
from dataclasses import replace
from typing import Final

from orchestrator.attempt import Attempt, Outcome, Phase, with_report
from orchestrator.driven_row import give_back
from orchestrator.store.claim import is_held
from orchestrator.surroundings import Surroundings
from orchestrator.updating.drive import drive_of
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import InvalidInput, Refused

_PATIENCE: Final = 5.0
_SECONDS: Final = 15.0
_UNSTARTED: Final = frozenset({Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING, Phase.BEGUN})


async def drive_briefly(around: Surroundings, attempt: Attempt, *, cancel: bool = False) -> Attempt:
    """Bring a claimed attempt that nobody drove to its end, if that takes seconds, and return how it stands then."""
    drive = drive_of(attempt, replace(around, patience=_PATIENCE))
    if cancel:
        drive.request_cancel()
    try:
        async with asyncio.timeout(_SECONDS):
            await drive.run()
    except TimeoutError:
        await asyncio.to_thread(give_back, around.store, drive.attempt)
    except asyncio.CancelledError:
        give_back(around.store, drive.attempt)
        raise
    return drive.attempt


async def settle_earlier(around: Surroundings, machine: MachineStatus) -> bool:
    """End what an earlier driver left open, where that can be known; an attempt that goes on is left alone.

    What had not started is cancelled. Returns whether anything was done, after which the machine may live elsewhere.
    """
    row = await asyncio.to_thread(around.store.open_attempt_of, machine.machine)
    if row is None or is_held(row, around.clock()) or await _goes_on(around, row):
        return False
    try:
        claimed = await asyncio.to_thread(around.store.claim, row.attempt, around.driver, around.clock())
    except Refused:
        return False  # somebody was faster
    if claimed.phase in {Phase.QUEUED, Phase.PREFLIGHT}:
        ended = claimed.to(Phase.ABORTED, Outcome.CANCELLED, reason="its driver went away before it began")
        await asyncio.to_thread(around.store.save, ended, around.clock())
        return False
    # Nobody knows whether the source has heard of one that was beginning: it is begun, and cancelled.
    await drive_briefly(around, claimed, cancel=claimed.phase is Phase.BEGINNING)
    return True


async def _goes_on(around: Surroundings, row: Attempt) -> bool:
    """Say whether the source of an attempt works on it; where it does not remember it, the journals know the end."""
    if not row.epoch:
        return False
    try:
        report = await around.agents.get_attempt(row.source, row.key())
    except InvalidInput:
        return False
    told = with_report(row, report)
    return not told.ended and told.phase not in _UNSTARTED
