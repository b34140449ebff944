"""An attempt as its account shows it, whatever it moves: what others may ask of it, and how they wish for its end.

The work up to the release is one task that a wish can end at any point; past it, nothing cancels.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Final, TypeVar

from source_agent.account import Account
from source_agent.outcome import failure_of, unexpected
from source_agent.patience import Patience
from source_agent.progress import CANCELLABLE, ENDED, Phase, ProgressBoard
from source_agent.terms import Terms
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import Cancelled, MigrationError, Refused
from vm_migration.handover.custody import Custody
from vm_migration.handover.record import Record
from vm_migration.telemetry import logs
from vmm.process.control import Description

_Found = TypeVar("_Found")
_log: Final = logs.get(__name__)


class ShownAttempt(ABC):
    """One attempt, in the hands of whoever drives it."""

    def __init__(self, account: Account) -> None:
        self.described: Description | None = None
        self._account: Final = account
        self._patience: Final = Patience(account)
        self._cancelled = False
        self._until_release: asyncio.Task[object] | None = None
        """What can be given up, while there is something."""
        self._decided: Final = asyncio.Event()
        """An end is durable, or the release."""

    @property
    def custody(self) -> Custody:
        """The machine in this agent's hands."""
        return self._account.custody

    @property
    def attempt(self) -> str:
        """Which attempt."""
        return self._account.attempt

    @property
    def terms(self) -> Terms:
        """Under what it runs, as tuned last."""
        return self._account.terms

    @property
    def board(self) -> ProgressBoard:
        """Where it is shown."""
        return self._account.board

    @property
    def record(self) -> Record:
        """The last record of the machine's journal that speaks of this attempt."""
        return self._account.record

    @property
    def open(self) -> bool:
        """Whether the attempt has not come to an end."""
        return self._account.now.phase not in ENDED

    def key(self) -> types_pb2.AttemptKey:
        """Return the attempt's key, as the journal has it."""
        return self._account.key()

    async def cancelled(self, longest: float) -> None:
        """End the attempt and wait until ABORTED is durable, or for so many seconds: the wish stands then.

        Raises:
            Refused: It is past the point of no return, or ended otherwise.
        """
        self.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._decided.wait()
        if self._is_given_away():
            raise self._past_return_already()

    def cancel(self) -> None:
        """Wish for the attempt's end; asked again, nothing changes.

        Raises:
            Refused: It is past the point of no return, or ended otherwise.
        """
        phase = self._account.now.phase
        if self._cancelled or phase is Phase.ABORTED:
            return
        if phase not in CANCELLABLE:
            raise self._past_return_already()
        self._cancelled = True
        self._account.waiting("was cancelled, and ends")
        self._patience.hurry()
        if self._until_release is not None:
            self._until_release.cancel()

    async def _unless_cancelled(self, work: Coroutine[None, None, _Found]) -> _Found:
        """Return what work before the release comes to, unless its end is wished for.

        Raises:
            Cancelled: The wish came after the work's last step, and before anything that cannot be undone.
        """
        task = self._until_release = asyncio.create_task(work, name=f"attempt {self.attempt}")
        if self._cancelled:
            task.cancel()
        try:
            found = await task
        finally:
            del task  # a failure keeps this frame, and the task may lead to the mapping of the machine's RAM
        if self._cancelled:
            raise self._as_asked()
        return found

    def _was_wished(self) -> bool:
        """Tell whether what was cancelled is this attempt's work, and not the task that drives it."""
        task = asyncio.current_task()
        halted = task is not None and task.cancelling() > 0
        return self._cancelled and not halted

    def _failure(self, error: BaseException) -> MigrationError:
        """Return what it fails with."""
        failure = failure_of(error, cancelled=self._cancelled)
        if failure is None:
            _log.error("attempt failed by our own fault", attempt=self.attempt, exc_info=error)
            failure = unexpected(error)
        return self._as_asked() if isinstance(failure, Cancelled) else failure

    @abstractmethod
    def _is_given_away(self) -> bool:
        """Tell whether the journal says that the attempt has passed the point of no return, or come to its goal."""

    @abstractmethod
    def _past_return_already(self) -> Refused:
        """Return what whoever wishes for its end too late is answered."""

    @abstractmethod
    def _as_asked(self) -> Cancelled:
        """Return what it ends with when it is cancelled."""
