"""All journals of one host: a folder on a disk, one file for each machine."""

from pathlib import Path
from typing import Final

from vm_migration.handover import journal
from vm_migration.handover.disk import Disk, RealDisk
from vm_migration.handover.journal import Journal
from vm_migration.handover.record import Record


class Journals:
    """Opens, makes and reads them; the errors are the journal's. Calls block, for a flush at most."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder: Final = folder
        self._disk: Final[Disk] = disk or RealDisk()

    def open(self, machine: str) -> Journal:
        """Become the controller of a machine's journal."""
        return Journal.open(self.folder, machine, disk=self._disk)

    def create(self, first: Record) -> Journal:
        """Make the journal of a machine new to this host; the folder is made when missing."""
        return Journal.create(self.folder, first, disk=self._disk)

    def read_last(self, machine: str) -> Record:
        """Return the last record, for showing only: it may not be durable yet."""
        return journal.read_last(self.folder, machine, disk=self._disk)

    def read_durable(self, machine: str) -> Record:
        """Return the last record once it is durable, whoever wrote it, without becoming the journal's controller.

        Raises:
            JournalUncertain: The disk failed.
        """
        return journal.read_last(self.folder, machine, disk=self._disk, durable=True)

    def machines(self) -> tuple[str, ...]:
        """Return the machines that this host has a journal of, tombstones included."""
        return journal.machines(self.folder, disk=self._disk)
