"""The site's own commands around a migration: started, given a deadline, and ended with everything that they started.

::

    before_prepare   before_handoff   before_ready     all must succeed, else the attempt is refused or aborted
    after_active     after_abort                       what fails is reported; nothing depends on it

before_handoff runs at the source before the guest is stopped, before_ready at the destination once the machine's memory
is whole there: the guest stands still meanwhile, and neither copy runs. A machine that sends its own stream stops when
it decides to: its before_handoff runs behind that stop, and within the bound of the pause.

A command gets VIADUCT_HOOK, VIADUCT_ATTEMPT, VIADUCT_MACHINE, VIADUCT_EPOCH and VIADUCT_HOST, no input, and no shell.
"""

import asyncio
import contextlib
import enum
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from vm_migration.errors import AttemptFailed, Refused

_OUTPUT_LIMIT: Final = 2000


class HookPoint(enum.StrEnum):
    """When a command runs."""

    BEFORE_PREPARE = "before_prepare"
    BEFORE_HANDOFF = "before_handoff"
    BEFORE_READY = "before_ready"
    AFTER_ACTIVE = "after_active"
    AFTER_ABORT = "after_abort"


_MUST_SUCCEED: Final = {
    HookPoint.BEFORE_PREPARE: Refused,
    HookPoint.BEFORE_HANDOFF: AttemptFailed,
    HookPoint.BEFORE_READY: AttemptFailed,
}


@dataclass(frozen=True, slots=True)
class HookContext:
    """What a command is told."""

    attempt: str
    machine: str
    epoch: int
    host: str

    def environment(self, point: HookPoint) -> dict[str, str]:
        """Return it as environment variables."""
        return {
            "VIADUCT_HOOK": point,
            "VIADUCT_ATTEMPT": self.attempt,
            "VIADUCT_MACHINE": self.machine,
            "VIADUCT_EPOCH": str(self.epoch),
            "VIADUCT_HOST": self.host,
        }


@dataclass(frozen=True, slots=True)
class HookReport:
    """How a command ended: its exit code (negative: the signal; None: it did not start), the last that it wrote."""

    command: tuple[str, ...]
    exit_code: int | None
    timed_out: bool
    ms: float
    output: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.exit_code == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.timed_out:
            end = f"did not end within {self.ms / 1000:.1f} s"
        elif self.exit_code is None:
            end = "did not start"
        elif self.exit_code < 0:
            end = f"was ended by signal {-self.exit_code}"
        else:
            end = f"exited with {self.exit_code}"
        lines = self.output.strip().splitlines()
        return f"Hook {self.command[0]} {end}" + (f": {lines[-1]}" if lines and not self.ok else "")


async def run_hooks(
    point: HookPoint,
    commands: Sequence[tuple[str, ...]],
    context: HookContext,
    deadline: float,
    environment: Mapping[str, str] | None = None,
) -> tuple[HookReport, ...]:
    """Run the commands of a point one after the other, each within `deadline` seconds, and report them.

    A before_* stops at the first that fails; an after_* runs all. No process of theirs is left, cancelled or not.

    Raises:
        Refused: A before_prepare failed.
        AttemptFailed: A before_handoff or before_ready failed.
    """
    inherited = os.environ if environment is None else environment
    reports = []
    for command in commands:
        report = await _run(command, {**inherited, **context.environment(point)}, deadline)
        reports.append(report)
        error = _MUST_SUCCEED.get(point)
        if error is not None and not report.ok:
            raise error("hook-failed", f"{point}: {report}", "Run the command by hand, or take it out of [hooks]")
    return tuple(reports)


async def _run(command: tuple[str, ...], environment: Mapping[str, str], deadline: float) -> HookReport:
    # Into a file: a child that outlives the command could hold a pipe open, and us with it.
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # its own process group, so that its children end with it
            )
        except OSError as error:
            return HookReport(command, None, timed_out=False, ms=0.0, output=error.strerror or str(error))
        timed_out = False
        try:
            async with asyncio.timeout(deadline):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        milliseconds = (time.monotonic() - start) * 1000
        return HookReport(command, process.returncode, timed_out=timed_out, ms=milliseconds, output=_last_of(output))


def _last_of(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _OUTPUT_LIMIT))
    return output.read().decode(errors="replace")
