"""How an attempt ends before the point of no return.

ABORTED is durable before the guest resumes and before the destination is told to discard. With the machine's process
proven gone no cancel, error or timer aborts: LOST, or, once stopped, whatever the destination's journal allows.
"""

import asyncio
from typing import Final

from source_agent.destination_link import DestinationLink
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import aborted, lost
from vm_migration.handover.evidence import InstanceGone
from vm_migration.handover.ownership import run_confirmed
from vm_migration.handover.record import encode
from vm_migration.handover.states import State
from vm_migration.machine.launch import take_away
from vm_migration.telemetry import logs

_DISCARD_WAITS: Final = (0.1, 0.5, 1.0)
_log: Final = logs.get(__name__)


async def abort_or_lose(custody: Custody, reason: str) -> State:
    """Write ABORTED and bring the machine back as it was, or LOST where its process is gone; return which.

    Raises:
        Unreachable: The process lives and does not answer: nothing was written.
        Refused: STOPPED with the process gone: the destination may hold the only whole copy.
    """
    process = await custody.answer_or_proof()
    if isinstance(process, InstanceGone):
        record = await custody.write(lambda last: lost(last, process=process, destination=None, reason=reason))
        await take_away(custody.directory, None)  # its folder counts against the host's memory, and its name is taken
        return record.state
    await custody.write(lambda last: aborted(last, reason=reason, process=process))
    await resume_as_owed(custody)
    return State.ABORTED


async def resume_as_owed(custody: Custody) -> None:
    """Bring devices and vCPUs back as they were, tracking off; idempotent.

    Raises:
        MachineError: The machine is not confirmed to be as it was; Begin is refused until it is.
    """
    record, port = custody.record, custody.port
    if record.was_running:
        await port.run(record.owned_epoch)
    else:
        await port.stay_paused(record.owned_epoch)
    await port.stop_tracking()
    answer = await custody.answer()
    await custody.write(lambda last: run_confirmed(last, answer))


async def tell_to_discard(link: DestinationLink, key: types_pb2.AttemptKey, custody: Custody) -> None:
    """Prove to the destination that the attempt ended here; it may hear of it later, when it asks."""
    record = custody.record
    request = destination_pb2.DiscardRequest(
        key=key, proof_state=record.state, proof_record=encode(record.public()).decode()
    )
    for wait in _DISCARD_WAITS:
        try:
            await link.discard(request)
        except MigrationError as error:
            _log.warning("destination did not hear of the end", code=error.code, reason=error.message)
            await asyncio.sleep(wait)
        else:
            return
