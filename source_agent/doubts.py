"""Machines about which this host may be wrong: their processes are paused, nothing of them is freed, a person is told.

Two grounds: the journals of an attempt's hosts contradict each other, or another host has a higher claim. What the
machine was doing is stopped; begin, resume and destroy are refused until a person has looked.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.errors import Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs

CONTRADICTION: Final = "contradiction"
OUTRANKED: Final = "outranked"
_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a machine is not touched; the code is `contradiction` or `outranked`."""

    code: str
    text: str


class Doubts:
    """Those of one host, in this life of its agent; the next one looks anew."""

    def __init__(self) -> None:
        self._doubts: Final[dict[str, Doubt]] = {}

    def raise_(self, machine: str, code: str, text: str) -> None:
        """Doubt a machine, and page whoever reads the log; once for each text."""
        doubt = Doubt(code, text)
        if self._doubts.get(machine) != doubt:
            self._doubts[machine] = doubt
            _log.error("page: this machine is paused, and nothing of it is freed", machine=machine, code=code, why=text)

    def settle(self, machine: str, code: str) -> None:
        """Doubt a machine no longer on that ground."""
        doubt = self._doubts.get(machine)
        if doubt is not None and doubt.code == code:
            del self._doubts[machine]

    def text(self, machine: str) -> str:
        """Return why a machine is doubted; empty when it is not."""
        doubt = self._doubts.get(machine)
        return "" if doubt is None else f"{doubt.code}: {doubt.text}"

    def require_none(self, machine: str) -> None:
        """Refuse to do anything to a machine that is doubted.

        Raises:
            Unresolved: It is.
        """
        doubt = self._doubts.get(machine)
        if doubt is not None:
            raise Unresolved(doubt.code, f"Machine {machine} is paused here: {doubt.text}", "See: viaduct doctor")


async def keep_still(custody: Custody) -> None:
    """Pause a machine's process, whatever its journal owes it; one that does not answer is paused at the next look."""
    try:
        if (await custody.answer()).running:
            await custody.port.pause(for_attempt=False)
    except MachineError as error:
        _log.error("machine could not be paused", machine=custody.record.machine, reason=str(error))
