"""`viaduct migrate` as the lab calls it: a process of its own, whose one JSON document is read."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab.scenario import RunSpecification
from vm_migration.errors import InternalError
from vm_migration.loopback.daemons import program
from vmm.assembly.quantity_text import format_rate


class Notice(msgspec.Struct, frozen=True):
    """A blocker or a warning."""

    code: str
    message: str


class Failure(msgspec.Struct, frozen=True):
    """Why it did not complete."""

    code: str
    message: str


class MigrationResult(msgspec.Struct, frozen=True):
    """What the lab reads of `viaduct.migration.v1`; other keys are left alone."""

    attempt: str
    outcome: str
    epoch: int
    downtime_ms: float | None
    rounds: tuple[dict[str, float], ...]
    pages_mismatched: int
    blockers: tuple[Notice, ...]
    warnings: tuple[Notice, ...]
    error: Failure | None


@dataclass(frozen=True, slots=True)
class Order:
    """One migration to be asked for."""

    machine: str
    destination: str
    run: RunSpecification
    configuration: Path


async def migrate(order: Order) -> MigrationResult:
    """Run the command to its end.

    Raises:
        InternalError: It answered with something that is no result.
    """
    process = await asyncio.create_subprocess_exec(
        *_command(order), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr.fileno()
    )
    try:
        async with asyncio.timeout(order.run.timeout_ms / 1000 + 60):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    try:
        return msgspec.json.decode(out, type=MigrationResult)
    except msgspec.DecodeError as error:
        text = f"viaduct migrate {order.machine} ended with {process.returncode} and no result: {error}"
        raise InternalError("no-result", text, "Run it again with --debug") from error


def _command(order: Order) -> list[str]:
    run = order.run
    return [
        program("viaduct"),
        *("migrate", order.machine, "--to", order.destination, "--json", "--config", str(order.configuration)),
        *("--downtime-limit", f"{run.downtime_limit_ms}ms", "--timeout", f"{run.timeout_ms}ms"),
        *("--max-bandwidth", format_rate(run.bandwidth), "--verify", "auto"),
    ]
