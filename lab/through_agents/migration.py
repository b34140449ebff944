"""`viaduct migrate` and `viaduct preflight` as the lab calls them: processes whose one JSON document is read."""

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from lab.scenario import RunSpecification
from vm_migration.errors import InternalError
from vm_migration.loopback.daemons import program
from vmm.assembly.quantity_text import format_rate

_BESIDES_SECONDS: Final = 60
_Result = TypeVar("_Result")


class Notice(msgspec.Struct, frozen=True):
    """A blocker or a warning."""

    code: str
    message: str


class Failure(msgspec.Struct, frozen=True):
    """Why it did not complete."""

    code: str
    message: str


class Expected(msgspec.Struct, frozen=True):
    """What a plan expects."""

    downtime_ms: float


class Candidate(msgspec.Struct, frozen=True):
    """What the lab reads of one destination in `viaduct.preflight.v1`."""

    blockers: tuple[Notice, ...]
    warnings: tuple[Notice, ...]
    expected: Expected | None


class PreflightResult(msgspec.Struct, frozen=True):
    """What the lab reads of `viaduct.preflight.v1`."""

    candidates: tuple[Candidate, ...]


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
    rounds_closed: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """One migration to be asked for."""

    machine: str
    destination: str
    run: RunSpecification
    configuration: Path


async def migrate(order: Order) -> MigrationResult:
    """Run `viaduct migrate` to its end; when this is cancelled, the migration is, and has ended.

    Raises:
        InternalError: It answered with something that is no result.
    """
    run = order.run
    words = ("--downtime-limit", f"{run.downtime_limit_ms}ms", "--timeout", f"{run.timeout_ms}ms", "--verify", "auto")
    out = await _document("migrate", order, (*words, *_paced(run)))
    return _decoded(out, MigrationResult)


async def preflight(order: Order) -> Candidate:
    """Run `viaduct preflight` for one destination.

    Raises:
        InternalError: It answered with something that is no result.
    """
    run = order.run
    words = ("--downtime-limit", f"{run.downtime_limit_ms}ms", *_paced(run))
    (candidate,) = _decoded(await _document("preflight", order, words), PreflightResult).candidates
    return candidate


def _paced(run: RunSpecification) -> tuple[str, ...]:
    """Return what makes a round take as long as its pages take at the bandwidth: compressed ones would take less."""
    return ("--max-bandwidth", format_rate(run.bandwidth), "--compression", "none")


async def _document(command: str, order: Order, words: Sequence[str]) -> bytes:
    common = (order.machine, "--to", order.destination, "--json", "--config", str(order.configuration))
    process = await asyncio.create_subprocess_exec(
        program("viaduct"),
        command,
        *common,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # what it complains of is in the document too
    )
    try:
        async with asyncio.timeout(order.run.timeout_ms / 1000 + _BESIDES_SECONDS):
            out, _ = await process.communicate()
            return out
    finally:
        if process.returncode is None:
            await _interrupted(process)


async def _interrupted(process: asyncio.subprocess.Process) -> None:
    """End a command as Ctrl-C does, which cancels its attempt; after SIGTERM that would go on without it."""
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(_BESIDES_SECONDS):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # its end is not told before what it has said is read


def _decoded(out: bytes, kind: type[_Result]) -> _Result:
    try:
        return msgspec.json.decode(out, type=kind)
    except msgspec.DecodeError as error:
        text = f"viaduct answered with no result but: {out[:200].decode(errors='replace')}"
        raise InternalError("no-result", text, "Run the scenario in process, or with --debug") from error
