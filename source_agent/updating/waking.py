"""A machine that waits in files is started in new processes, by whoever comes next: the release, or a later life.

It waits for as long as its file lies beside its RAM, and that goes before the guest wakes: where it lies, nothing has
run since, whoever has been named meanwhile. A process that ended before it was told to run is followed by another.

::

    those before have ended -> new ones "ready" -> named in the journal -> named in the place, and kept -> (Run)

Two never have it: the lock on RAM's file is one process's, and a process that was not kept ends with its agent.
"""

from pathlib import Path
from typing import Final

import msgspec

from source_agent.ending import lose
from source_agent.terms import decode, encode
from vm_migration.errors import Unreachable
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import InstanceGone, Process
from vm_migration.handover.record import Record
from vm_migration.handover.succession import UpdateTerms, update_of, waits_in_files, woken
from vm_migration.machine.errors import MachineError
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.succession import Succession
from vm_migration.machine.waiting_in_files import WaitingPlace

_END_SECONDS: Final = 2.0
"""For the process that had it, once it was asked to end; it holds RAM's file until then."""


def cannot_wake(record: Record) -> Unreachable:
    """Return what is told of a machine that may wait, and that nobody can begin from."""
    where = _place_of(record)
    text = (
        f"Machine {record.machine} waits at {where.path if where else 'no file'}, and nothing there can be used;"
        f" where that is gone for good: viaduct recover --machine {record.machine} --files-gone"
    )
    return Unreachable("cannot-wake", text, "Mount its file system, or look at the file, and at RAM's beside it")


async def waiting(custody: Custody, succession: Succession) -> Process:
    """Look whether a machine waits in files since its stop; UNKNOWN where one is there that cannot be used."""
    record = custody.record
    where = _place_of(record)
    found = False if where is None else await succession.waits(custody.place, record.specification, where, record.pause)
    if found is None:
        return Process.UNKNOWN
    return Process.ALIVE if found else Process.GONE


async def wake_where_it_waits(custody: Custody, hypervisor: Hypervisor, succession: Succession) -> None:
    """Start a machine that this host owns anew, where its processes have ended before it ran; idempotent.

    Raises:
        Unreachable: What waits cannot be used.
        MachineError, MigrationError: It could not be started; it waits on.
    """
    record = custody.record
    if not _may_wait(record):
        return
    instance = custody.place.instance()
    in_place = instance is not None and instance.name == record.instance
    if in_place and custody.process() is not Process.GONE:
        return
    if await waiting(custody, succession) is not Process.GONE:
        await wake(custody, hypervisor, succession)


async def bring_from_files(custody: Custody, hypervisor: Hypervisor, succession: Succession) -> None:
    """As `wake_where_it_waits`; one whose files have gone with its processes is LOST: its guest had run again.

    Raises:
        Unreachable: What waits cannot be used.
        MachineError, MigrationError: It could not be started; it waits on.
    """
    await wake_where_it_waits(custody, hypervisor, succession)
    ended = _may_wait(custody.record) and custody.process() is Process.GONE
    # In this order: nobody is left who takes the file away.
    if ended and await waiting(custody, succession) is Process.GONE:
        await lose(custody, InstanceGone(custody.record.instance), None, "The machine's process ended")


async def wake(custody: Custody, hypervisor: Hypervisor, succession: Succession) -> None:
    """Have a machine that waits in new processes, which are its own from here on; nothing runs yet.

    Raises:
        Unreachable: What waits cannot be used; nothing was ended.
        Stale: Another controller has opened the journal; what was started has ended.
        MachineError, MigrationError: It could not be started; it waits on.
    """
    record, where = custody.record, _place_of(custody.record)
    if where is None or await waiting(custody, succession) is not Process.ALIVE:
        raise cannot_wake(record)
    await _ended(custody, succession)
    new = await succession.wake(custody.place, record.specification, where.path)
    try:
        await custody.write(lambda last: _named(last, record.instance, new.name))
        async with custody.mine():
            new.keep()
    except BaseException:
        await new.end()
        raise
    before, custody.port = custody.port, hypervisor.connect(custody.place)
    await before.close()
    await custody.attach(max(custody.record.owned_epoch, custody.record.released_epoch))


def _may_wait(record: Record) -> bool:
    return record.owns and not record.run_confirmed and waits_in_files(record)


async def _ended(custody: Custody, succession: Succession) -> None:
    """End the process that the journal names: it has run nothing since the stop, and never will."""
    try:
        await custody.port.destroy()
    except MachineError:
        await succession.end(custody.record.instance)
    else:
        await succession.end(custody.record.instance, patience=_END_SECONDS)


def _named(last: Record, before: str, name: str) -> Record:
    terms, update = decode(last.policy), update_of(last) or UpdateTerms("reboot")
    terms = msgspec.structs.replace(terms, update=msgspec.structs.replace(update, successor=name))
    return msgspec.structs.replace(woken(last, successor=name, gone=InstanceGone(before)), policy=encode(terms))


def _place_of(record: Record) -> WaitingPlace | None:
    update = update_of(record)
    return None if update is None or not update.waits else WaitingPlace(Path(update.waits), update.home)
