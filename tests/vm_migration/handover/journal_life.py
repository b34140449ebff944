"""One machine, and the changes that its journal records."""

from collections.abc import Callable
from pathlib import Path

from vm_migration.handover import departure, ownership
from vm_migration.handover.disk import Disk
from vm_migration.handover.evidence import ProcessAnswer
from vm_migration.handover.journal import Journal
from vm_migration.handover.record import AttemptKey, Record

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
ATTEMPT = "5f0e8d0a-1111-4222-8333-444455556666"
FOLDER = Path("/var/lib/viaduct/journal")
OWNER = ownership.create(MACHINE, instance="i1", was_running=True, specification='{"memory":"' + "1" * 900 + '"}')


def answer(record: Record, *, running: bool) -> ProcessAnswer:
    return ProcessAnswer(record.instance, record.controller, running, record.pause)


def confirm(record: Record) -> Record:
    return ownership.run_confirmed(record, answer(record, running=record.was_running))


def begin(record: Record) -> Record:
    return departure.begin(
        record, AttemptKey(MACHINE, ATTEMPT, 0, 1), destination="b", was_running=True, secret=b"s" * 32, policy="{}"
    )


def stop(record: Record) -> Record:
    return departure.stopped(record, pause=record.pause + 1, bound_ms=1000)


def abort(record: Record) -> Record:
    return departure.aborted(record, reason="asked", process=answer(record, running=False))


LIFE: tuple[Callable[[Record], Record], ...] = (confirm, begin, stop, abort)


def live(disk: Disk, seen: list[Record]) -> None:
    """Create, live through an attempt, open twice in between; note each record once it is confirmed."""
    journal = Journal.create(FOLDER, OWNER, disk=disk)
    seen.append(journal.last)
    for number, change in enumerate(LIFE):
        if number % 2 == 1:
            journal.close()
            journal = Journal.open(FOLDER, MACHINE, disk=disk)
            seen.append(journal.last)
        seen.append(journal.append(change(journal.last)))
