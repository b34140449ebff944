"""Whether everything has come to rest, and as what: read from journals, processes and the driver's row."""

import asyncio
import time

from tests.faults.expected import Ending
from tests.faults.sampling import Sampler
from tests.faults.trial import DESTINATION, SOURCE, Trial
from tests.faults.updated import ending_of_update
from vm_migration.handover.record import Record
from vm_migration.handover.states import OPEN, OWNING, State

BY_ITSELF = 60.0
_LOOK_SECONDS = 0.05
_UNRESOLVED_SECONDS = 2.0
"""For so long a machine that nobody can know about is watched for somebody who decides all the same."""


def ending(trial: Trial, sampler: Sampler) -> Ending:
    """Return how the machine stands by both journals and by its processes."""
    if trial.row.updates:
        return ending_of_update(trial, sampler)
    records = {host: record for host in (SOURCE, DESTINATION) if (record := trial.record(host)) is not None}
    there = records.get(DESTINATION)
    if there is not None and there.state is State.ACTIVATING and not _lives(trial, DESTINATION):
        return Ending.UNRESOLVED
    owners = [host for host, record in records.items() if record.state in OWNING]
    here = records.get(SOURCE)
    found = Ending.BROKEN
    if len(owners) == 1 and not _lives(trial, owners[0]):
        found = Ending.DIED
    elif len(owners) == 1 and _runs(trial, sampler, owners[0]):
        found = Ending.STAYED if owners == [SOURCE] else Ending.COMPLETED
    elif not owners and here is not None and here.state is State.LOST:
        gone = there is None or there.state in (State.DISCARDED, State.LOST)
        found = Ending.LOST if gone else Ending.BROKEN
    if found is Ending.COMPLETED and (here is None or here.state is not State.RETIRED):
        return Ending.BROKEN
    return found


def unsettled(trial: Trial, sampler: Sampler) -> str:
    """Return what is still open, in words; nothing when all is at rest."""
    found = ending(trial, sampler)
    if found is Ending.BROKEN:
        return f"the journals say {_said(trial)}, and what runs does not fit"
    if found is Ending.UNRESOLVED:
        return ""
    for host in (SOURCE, DESTINATION):
        record = trial.record(host)
        if record is not None and (words := _owed(record, found)):
            return f"{host} {words}"
    return "" if trial.by_command else _row_open(trial)


async def settled(trial: Trial, sampler: Sampler, seconds: float) -> str:
    """Wait until all is at rest; return what is not when the time is over."""
    until = time.monotonic() + seconds
    while (words := unsettled(trial, sampler)) and time.monotonic() < until:  # noqa: ASYNC110 - other processes' files
        await asyncio.sleep(_LOOK_SECONDS)
    if not words and ending(trial, sampler) is Ending.UNRESOLVED:
        await asyncio.sleep(_UNRESOLVED_SECONDS)
    return words


def _owed(record: Record, found: Ending) -> str:
    if record.state in OPEN:
        return f"stands at {record.state}"
    if record.state in OWNING and found is not Ending.DIED:
        if not record.former_retired:
            return "has not heard that the former source retired its copy"
        if not record.run_confirmed:
            return "owes the machine its run state"
    return ""


def _row_open(trial: Trial) -> str:
    row = trial.row_of_it()
    if row is None:
        done = trial.ordering is None or trial.ordering.done()
        return "" if done else "the order has not been answered"
    return "" if row.ended else f"the row stands at {row.phase}, {row.outcome or 'open'}: {row.reason}"


def _said(trial: Trial) -> str:
    return ", ".join(f"{host} {trial.state(host) or 'nothing'}" for host in (SOURCE, DESTINATION))


def _lives(trial: Trial, host: str) -> bool:
    return trial.site.directory(host, trial.machine).alive()


def _runs(trial: Trial, sampler: Sampler, host: str) -> bool:
    look = sampler.last(host)
    instance = trial.site.directory(host, trial.machine).instance()
    return look is not None and instance is not None and look.instance == instance.token and look.run_state == "running"
