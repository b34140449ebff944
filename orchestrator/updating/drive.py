"""Drives one update: an attempt that only its source agent works on.

::

    preflight -> BeginUpdate -> watch -> owner        completed
        |            |
        '------------'-> refused; nothing was done

The agent goes on alone from Begin: there is nothing to prepare anywhere, nobody to discard anything, and a driver that
took an update over just watches it.
"""

from dataclasses import replace
from typing import Final

from orchestrator.attempt import Attempt, Notice, Phase, blocked, fault_of
from orchestrator.drive import Drive
from orchestrator.driven_row import CancelAsked
from orchestrator.preflight import with_findings
from orchestrator.surroundings import Surroundings
from orchestrator.updating.asking import ask_update
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import MigrationError, Unreachable
from vm_migration.telemetry import logs

_NONE: Final[tuple[Notice, ...]] = ()


class _NoHooks:
    """Implements `orchestrator.surroundings.Hooks`: a site's hooks are about machines that move."""

    async def before_prepare(self, attempt: Attempt) -> None:
        """Run nothing."""

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        """Run nothing."""
        del attempt
        return _NONE


class UpdateDrive(Drive):
    """One update, claimed by this driver."""

    def __init__(self, attempt: Attempt, around: Surroundings) -> None:
        super().__init__(attempt, replace(around, hooks=_NoHooks()))

    async def _preflight(self) -> bool:
        await self._row.write(self.attempt.to(Phase.PREFLIGHT, reason="asks its host"))
        attempt = self.attempt
        machine = types_pb2.MachineStatus(machine=attempt.machine, name=attempt.name, host=attempt.source)
        try:
            found = await self._row.unless_cancelled(ask_update(self._agents, machine, attempt.asked.update))
        except MigrationError as error:
            await self._refuse(fault_of(error))
            return False
        await self._row.write(with_findings(attempt, found))
        if found.blockers:
            await self._refuse(blocked(attempt, found.blockers))
        elif self._row.cancel.is_set():
            raise CancelAsked
        return found.passes

    async def _begin(self) -> source_pb2.BeginResponse | None:
        await self._row.write(self.attempt.to(Phase.BEGINNING, reason=f"has {self.attempt.source} open the attempt"))
        attempt = self.attempt
        request = source_pb2.BeginUpdateRequest(key=attempt.key(), mode=attempt.asked.update)
        try:
            begun = await self._insist(lambda: self._agents.begin_update(attempt.source, request))
        except Unreachable:
            raise
        except MigrationError as error:
            await self._refuse(fault_of(error))
            return None
        began = replace(self.attempt.to(Phase.BEGUN), epoch=begun.key.epoch)
        logs.bind(machine=began.machine, attempt=began.attempt, epoch=began.epoch)
        await self._row.write(began)
        return begun

    async def _prepare_and_start(self, begun: source_pb2.BeginResponse) -> None:
        """Nothing is prepared: the agent goes on alone."""

    async def _give_up_what_never_started(self) -> None:
        """Nothing waits for a start: whoever took it over watches."""

    async def _discarded(self, patience: float) -> Notice | None:
        """Nothing arrived anywhere."""
        del patience
        return None


def drive_of(attempt: Attempt, around: Surroundings) -> Drive:
    """Return who drives an attempt, of its kind."""
    return UpdateDrive(attempt, around) if attempt.asked.update else Drive(attempt, around)
