"""The journals of a host that is off, where its disk is mounted: read for the plan, appended to for a release.

What is appended is what the host's own agent would have written: RELEASED, after the same checks, in the same file and
under the same lock. When the host is back, its agent goes on from there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

from orchestrator.recovery.fenced_word import Journalled
from vm_migration.errors import InvalidInput, MigrationError, Refused
from vm_migration.handover.departure import released
from vm_migration.handover.disk import RealDisk
from vm_migration.handover.evidence import InstanceGone, SideView
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import Record


class _ReadOnly(RealDisk):
    """Also where the disk is mounted for reading only. The host is off, so nobody writes: nothing is locked."""

    def open(self, path: Path) -> int:
        """Open for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def lock(self, file: int) -> None:
        """Do nothing."""

    def unlock(self, file: int) -> None:
        """Do nothing."""


class JournalFolder:
    """The folder `journal` of a host's state_dir."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def fault(self) -> InvalidInput | None:
        """Return why this is no journal folder."""
        try:
            if self._machines():
                return None
        except OSError as error:
            return InvalidInput("no-journals", f"{self.path} cannot be read: {error.strerror or error}", _HINT)
        if not self.path.is_dir():
            return InvalidInput("no-journals", f"{self.path} is no folder", _HINT)
        if JournalFolder(self.path / "journal").fault() is None:
            return InvalidInput("no-journals", f"{self.path} holds no journals", f"Name {self.path / 'journal'}")
        return InvalidInput("no-journals", f"{self.path} holds no journals", _HINT)

    def read(self) -> Mapping[str, Journalled]:
        """Return what every journal says last, by machine."""
        journals = Journals(self.path, _ReadOnly())
        return {machine: self._last(journals, machine) for machine in self._machines()}

    def release(self, planned: Record, ready: SideView) -> Record:
        """Append RELEASED to the journal of a machine whose process is gone by the operator's word; return the record.

        Raises:
            Refused: It does not stand where the plan found it; nothing was appended.
            MigrationError: The journal cannot be written.
        """
        with Journals(self.path).open(planned.machine) as journal:
            last = journal.last
            if (last.state, last.attempt, last.pause) != (planned.state, planned.attempt, planned.pause):
                text = f"The journal of {planned.machine} has moved to {last.state} since it was read"
                raise Refused("journal-moved", text, "Make sure that its host is off, and ask again")
            following = released(last, destination=ready, process=InstanceGone(last.instance))
            return last if following is last else journal.append(following)

    def _machines(self) -> tuple[str, ...]:
        return tuple(name for name in Journals(self.path).machines() if _is_uuid(name))

    @staticmethod
    def _last(journals: Journals, machine: str) -> Journalled:
        try:
            return journals.read_last(machine)
        except MigrationError as error:
            return error


_HINT: Final = "Name the folder `journal` in the state_dir of the host that is off"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
