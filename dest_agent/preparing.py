"""Prepare: everything that must be there before the first byte.

::

    fits? -> PREPARED durable -> incoming machine process -> memory reserved and touched -> ticket

What fails after PREPARED is given up: DISCARDED, and nothing is left of the process.
"""

import asyncio
import secrets
from typing import Final
from uuid import UUID

from dest_agent.incoming_attempt import IncomingAttempt
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused
from vm_migration.handover.arrival import given_up, prepared
from vm_migration.handover.custody import Custody
from vm_migration.handover.journal_errors import JournalExists
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import bound_to
from vm_migration.handover.record import AttemptKey
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.port import MachineError
from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock

_POPULATE_PAGES: Final = 16384
"""64 MiB at a time, so that a cancel is heard within a fraction of a second."""


async def journal_prepared(
    journals: Journals, hypervisor: Hypervisor, key: AttemptKey, request: destination_pb2.PrepareRequest
) -> Custody:
    """Write PREPARED, as the journal's first record or after its last; nothing else has happened when this fails.

    Raises:
        Refused: The machine is here, another attempt is open, or the epoch is over.
    """
    text = request.requirements.specification.decode()
    first = prepared(None, key, source=request.source, secret_hash=request.secret_hash, specification=text)
    try:
        journal = await asyncio.to_thread(journals.create, first)
    except JournalExists:
        custody = await Custody.open(journals, hypervisor, key.machine)
        try:
            await custody.write(
                lambda record: prepared(
                    record, key, source=request.source, secret_hash=request.secret_hash, specification=text
                )
            )
        except MigrationError:
            await custody.close()
            raise
        return custody
    return Custody(journal, hypervisor.of(UUID(key.machine)), hypervisor)


async def bring_up(
    custody: Custody,
    hypervisor: Hypervisor,
    specification: MachineSpecification,
    request: destination_pb2.PrepareRequest,
) -> IncomingAttempt:
    """Start the incoming machine and make its memory ready.

    Raises:
        Refused: It did not come up, or the host has no memory; the attempt is DISCARDED here and nothing is left.
    """
    started = loop_ns()
    try:
        return await _brought_up(custody, hypervisor, specification, request, started)
    except BaseException as error:
        await give_up(custody, f"Prepare failed: {error}")
        if isinstance(error, MachineError):
            raise Refused("prepare-failed", f"Machine could not be prepared: {error}", "Look at this host") from error
        raise


async def give_up(custody: Custody, reason: str, *, attached: bool = True) -> None:
    """End an arrival that holds no whole image: DISCARDED, and the process taken away, by its id where not attached."""
    await custody.write(lambda record: given_up(record, reason=reason))
    await custody.take_away(kill=not attached)


async def _brought_up(
    custody: Custody,
    hypervisor: Hypervisor,
    specification: MachineSpecification,
    request: destination_pb2.PrepareRequest,
    started: int,
) -> IncomingAttempt:
    record = custody.record
    place = await hypervisor.launch(UUID(record.machine), specification, incoming=True)
    instance = place.instance()
    name = "" if instance is None else instance.name
    await custody.write(lambda last: bound_to(last, name))
    await custody.attach(record.epoch)
    ram = await custody.port.ram()
    try:
        await _populate(custody, ram)
        attempt = IncomingAttempt(
            custody,
            ram,
            request.source,
            secrets.token_bytes(32),
            streams=max(1, request.streams),
            full=request.verify == types_pb2.VERIFY_MODE_FULL,
        )
    except BaseException:
        ram.close()
        raise
    attempt.prepare_ms = (loop_ns() - started) / 1e6
    return attempt


async def _populate(custody: Custody, ram: RamBlock) -> None:
    """Touch every page in the machine process first, which is where the time goes, then map it here."""
    for first in range(0, ram.pages, _POPULATE_PAGES):
        count = min(_POPULATE_PAGES, ram.pages - first)
        await custody.port.populate(first, count)
        await asyncio.to_thread(ram.populate, first, count)
