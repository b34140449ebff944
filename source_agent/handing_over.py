"""From READY to RETIRED: the point of no return, and what follows from it for ever.

::

    process confirmed stopped at that pause -> RELEASED durable -> release(epoch) -> Handoff(secret), repeated until
    answered -> ACTIVE seen -> RETIRED durable -> the paused image is freed -> the new owner is told

After RELEASED this host never runs the machine again, except through RECLAIMED; so the hand-off is asked again as long
as it takes.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from source_agent.destination_link import DestinationLink
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import released
from vm_migration.handover.evidence import Process, SideView
from vm_migration.handover.ownership import retired
from vm_migration.handover.states import State
from vm_migration.machine.launch import take_away
from vm_migration.machine.port import MachineError
from vm_migration.telemetry import logs

_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_NOTE_TRIES: Final = 5
_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Handed:
    """What the destination answered to the secret; times are nanoseconds, `sent` and `answered` on this clock."""

    sent_ns: int
    answered_ns: int
    executed_ns: int
    boot_id: str
    activate_ns: int


async def release(custody: Custody, attempt: str, pause: int) -> None:
    """Give the machine up: durable when this returns.

    Raises:
        Refused: The machine is not stopped at that pause at this moment; nothing was written.
        JournalUncertain: Nobody knows; neither resume nor hand off until ABORTED is durable.
    """
    process = await custody.answer_or_proof()
    ready = SideView(attempt=attempt, sight=State.READY, process=Process.ALIVE, pause=pause)
    record = await custody.write(lambda last: released(last, destination=ready, process=process))
    try:
        await custody.port.release(record.epoch)
    except MachineError as error:
        # A process that is gone runs nothing; one that is silent keeps its image paused, and the journal rules.
        _log.warning("machine process did not confirm its release", reason=str(error))


async def hand_over(
    link: DestinationLink, key: types_pb2.AttemptKey, pause: int, secret: bytes, tell: Callable[[str], None]
) -> Handed:
    """Give the secret away until the destination answers that it is active.

    `tell` is given what the hand-off waits for.
    """
    request = destination_pb2.HandoffRequest(key=key, pause=pause, secret=secret)
    tries = 0
    while True:
        sent_ns = time.monotonic_ns()
        try:
            answer = await link.handoff(request)
        except MigrationError as error:
            tell(f"waits for {link.peer} to take over: {error.message}")
            _log.warning("hand-off not answered", peer=link.peer, code=error.code, reason=error.message)
        else:
            if answer.state == State.ACTIVE:
                return Handed(
                    sent_ns=sent_ns,
                    answered_ns=time.monotonic_ns(),
                    executed_ns=answer.executed_at_ns,
                    boot_id=answer.boot_id,
                    activate_ns=round(answer.activate_ms * 1e6),
                )
            tell(f"waits for {link.peer}, which says {answer.state}")
        await asyncio.sleep(_BACKOFF[min(tries, len(_BACKOFF) - 1)])
        tries += 1


async def retire(custody: Custody, link: DestinationLink, key: types_pb2.AttemptKey) -> None:
    """Give the paused image up, now that the destination is ACTIVE, and tell the new owner so.

    Raises:
        Unresolved: The journal refused; the image stays.
    """
    view = SideView(attempt=key.attempt, sight=State.ACTIVE, process=Process.ALIVE, highest_epoch=key.epoch)
    try:
        await custody.write(lambda record: retired(record, view))
    except MigrationError as error:
        raise Unresolved(error.code, f"Machine could not be retired: {error.message}", error.hint) from error
    await take_away(custody.directory, custody.port)
    request = destination_pb2.NoteRetiredRequest(key=key)
    for wait in _BACKOFF[:_NOTE_TRIES]:
        try:
            await link.note_retired(request)
        except MigrationError as error:
            _log.warning("new owner did not hear of the retirement", code=error.code, reason=error.message)
            await asyncio.sleep(wait)
        else:
            return
