"""Prepare: everything that must be there before the first byte.

::

    fits? -> PREPARED durable -> incoming machine process -> memory reserved and touched -> ticket

What fails after PREPARED is given up: DISCARDED, and nothing is left of the process.
"""

import asyncio
import secrets
from typing import Final
from uuid import UUID

from dest_agent.admission import streams_in
from dest_agent.arriving_machine import ArrivingMachine
from dest_agent.incoming_attempt import IncomingAttempt
from dest_agent.settling import free
from dest_agent.stream_arrival import StreamArrival
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused
from vm_migration.handover.arrival import given_up, prepared
from vm_migration.handover.custody import NO_INSTANCE, Custody
from vm_migration.handover.journal_errors import JournalExists
from vm_migration.handover.journals import Journals
from vm_migration.handover.ownership import bound_to
from vm_migration.handover.record import AttemptKey
from vm_migration.link.direct_hello import TICKET_BYTES
from vm_migration.link.machine_stream.order import connections
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import CutOff, MachineError
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.run_directory import IN_SOCKET
from vm_migration.telemetry.counts import ARRIVALS_PREPARED
from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock
from vmm.process.own_stream import StreamTerms

_DIRECT: Final = "direct"
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
) -> ArrivingMachine:
    """Start the incoming machine and make its memory ready.

    Raises:
        Refused: It did not come up, or the host has no memory; the attempt is DISCARDED here and nothing is left.
    """
    started = loop_ns()
    launched: list[MachinePlace] = []
    try:
        attempt = await _brought_up(custody, hypervisor, specification, request, launched)
    except BaseException as error:
        try:
            await give_up(custody, f"Prepare failed: {error}")
        finally:
            for place in launched:
                await end_launch(custody, hypervisor, place)
        if isinstance(error, MachineError):
            raise Refused("prepare-failed", f"Machine could not be prepared: {error}", "Look at this host") from error
        raise
    attempt.prepare_ms = (loop_ns() - started) / 1e6
    return attempt


async def end_launch(custody: Custody, hypervisor: Hypervisor, place: MachinePlace) -> None:
    """End a process that was launched and that no journal names, unless somebody newer commands what stands there.

    An agent that was frozen in the middle of a launch comes here when the journal is another's: whatever this place has
    by then obeys its own controller, and is asked, never killed.

    Raises:
        Refused: What stands there has run: the journal is older than it.
    """
    instance = place.instance()
    if instance is not None:
        try:
            seen = await custody.attach(custody.record.epoch)
            if seen.run_state != "incoming":
                text = f"A process of machine {custody.record.machine} that no journal names is {seen.run_state}"
                raise Refused("journal-rolled-back", text, "viaduct doctor")
            await custody.port.destroy()
        except CutOff:
            return
        except MachineError as error:
            if place.alive():
                raise Refused("process-silent", f"A process that no journal names is silent: {error}") from error
    await hypervisor.take_away(place, None, only=NO_INSTANCE if instance is None else instance.name)


async def give_up(custody: Custody, reason: str) -> None:
    """End an arrival that holds no whole image: DISCARDED, and the process taken away."""
    await custody.write(lambda record: given_up(record, reason=reason))
    await free(custody)


async def _brought_up(
    custody: Custody,
    hypervisor: Hypervisor,
    specification: MachineSpecification,
    request: destination_pb2.PrepareRequest,
    launched: list[MachinePlace],
) -> ArrivingMachine:
    record, started = custody.record, loop_ns()
    place = await hypervisor.launch(UUID(record.machine), specification, incoming=True)
    launched.append(place)
    instance = place.instance()
    name = "" if instance is None else instance.name
    await custody.write(lambda last: bound_to(last, name))
    moves = (await custody.attach(record.epoch)).moves
    launched_ms = (loop_ns() - started) / 1e6
    attempt = await (_listening(custody, request) if moves == "stream" else _reserved(custody, request))
    attempt.launch_ms = launched_ms
    ARRIVALS_PREPARED.add()
    return attempt


async def _listening(custody: Custody, request: destination_pb2.PrepareRequest) -> StreamArrival:
    """Have a machine's process listen for a stream of its own; it touched its memory when it started.

    For one that comes directly it listens when its source asks for that: dest_agent.stream_door.
    """
    path, channels = custody.place.path / IN_SOCKET, streams_in(request.streams)
    if request.transport != _DIRECT:
        await custody.port.accept_stream(str(path), StreamTerms(channels=channels))
    return StreamArrival(
        custody, request.source, secrets.token_bytes(TICKET_BYTES), path=path, most=connections(channels)
    )


async def _reserved(custody: Custody, request: destination_pb2.PrepareRequest) -> IncomingAttempt:
    """Have memory that pages can be written into."""
    ram = await custody.port.ram()
    try:
        await _populate(custody, ram)
        return IncomingAttempt(
            custody,
            ram,
            request.source,
            secrets.token_bytes(TICKET_BYTES),
            streams=streams_in(request.streams),
            full=request.verify == types_pb2.VERIFY_MODE_FULL,
        )
    except BaseException:
        ram.close()
        raise


async def _populate(custody: Custody, ram: RamBlock) -> None:
    """Touch every page in the machine process first, which is where the time goes, then map it here."""
    for first in range(0, ram.pages, _POPULATE_PAGES):
        count = min(_POPULATE_PAGES, ram.pages - first)
        await custody.port.populate(first, count)
        await asyncio.to_thread(ram.populate, first, count)
