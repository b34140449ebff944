"""After a fault, the machine is moved once more, to the same host or to a third: that must complete, byte by byte.

One whose RAM is in a file, which here all hosts would share, is updated once more: to another process, with the devices
that it set up when it woke.
"""

import asyncio
import contextlib
import time
import zlib

import msgspec

from orchestrator.attempt import Attempt
from orchestrator.client import RemoteDesk
from tests.faults.expected import Ending
from tests.faults.observation import SecondAttempt
from tests.faults.rows import PAIRED
from tests.faults.trial import DESTINATION, SOURCE, THIRD, Trial
from vm_migration.errors import MigrationError

_SECONDS = 60.0
_HELD_SECONDS = 25.0
"""A command that was killed holds its attempt until its heartbeat is old."""
_AGAIN_SECONDS = 1.0
_NOT_STARTED = "driver-gone"
"""What an attempt is told that had not started when another orchestrator came to lead."""


async def second_attempt(trial: Trial, ending: Ending) -> SecondAttempt:
    """Move the machine from where it runs; who drives is who drove before."""
    back = SOURCE if ending is Ending.COMPLETED and not trial.row.updates else DESTINATION
    destination = SOURCE if trial.row.in_files else (back, THIRD)[zlib.crc32(str(trial.row).encode()) % 2]
    if trial.by_command:
        return await _by_command(trial, destination)
    try:
        async with asyncio.timeout(_SECONDS), trial.desk() as opened:
            row = await _moved(opened, trial, destination)
            while trial.row.victim in PAIRED and row.error is not None and row.error.code == _NOT_STARTED:
                row = await _moved(opened, trial, destination)  # as its hint says: another one leads by now
    except (MigrationError, TimeoutError) as error:
        return SecondAttempt(
            destination=destination, outcome="", error=repr(error), pages=0, pages_verified=0, pages_mismatched=0
        )
    return _told(destination, row)


async def _moved(opened: RemoteDesk, trial: Trial, destination: str) -> Attempt:
    """Order a move and return how it ended."""
    row = await opened.submit(trial.make_second(destination))
    async with contextlib.aclosing(opened.watch(row)) as rows:
        async for seen in rows:
            row = seen
    return row


async def _by_command(trial: Trial, destination: str) -> SecondAttempt:
    until = time.monotonic() + _HELD_SECONDS
    while True:
        found = await _command(trial, destination)
        if found.error is None or found.error.code != "attempt-open" or time.monotonic() > until:
            break
        await asyncio.sleep(_AGAIN_SECONDS)  # it ends at a host, and tells nobody here
    return SecondAttempt(
        destination=destination,
        outcome=found.outcome or "",
        error="" if found.error is None else f"{found.error.code}: {found.error.message}",
        pages=0 if trial.row.in_files else found.ram_bytes // 4096,
        pages_verified=found.pages_verified,
        pages_mismatched=found.pages_mismatched,
    )


class _Fault(msgspec.Struct):
    code: str
    message: str


class _Result(msgspec.Struct):
    """What counts here of `viaduct.migration.v1`."""

    outcome: str | None = None
    error: _Fault | None = None
    ram_bytes: int = 0
    pages_verified: int = 0
    pages_mismatched: int = 0
    update: "_Result | None" = None
    """Where it was one: `viaduct.update.v1`."""


async def _command(trial: Trial, destination: str) -> _Result:
    process = trial.start_second(destination)
    try:
        await asyncio.to_thread(process.wait, _SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            await asyncio.to_thread(process.wait)
    found = msgspec.json.decode(trial.command_output().read_bytes() or b"{}", type=_Result)
    return found.update or found


def _told(destination: str, row: Attempt) -> SecondAttempt:
    report = row.report
    return SecondAttempt(
        destination=destination,
        outcome="" if row.outcome is None else row.outcome.value,
        error="" if row.error is None else f"{row.error.code}: {row.error.message}",
        pages=0 if report is None or row.asked.update else report.ram_bytes // 4096,
        pages_verified=0 if report is None else report.pages_verified,
        pages_mismatched=0 if report is None else report.pages_mismatched,
    )
