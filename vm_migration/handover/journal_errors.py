"""What can go wrong with a journal.

::

    Refused       JournalExists       this host has a journal of the machine already; nothing was written
                  JournalUnwritable   no space for the attempt's closing records; nothing was written
    Stale         JournalMoved        another controller has appended; this one knows nothing any more
    Unreachable   JournalUnreadable   missing, empty or damaged: never "no such attempt"
                  JournalBusy         another process keeps the lock; nothing was written
    Unresolved    JournalUncertain    a write or flush failed: the record may be durable or not
"""

from vm_migration.errors import Refused, Stale, Unreachable, Unresolved


class JournalExists(Refused):
    """A journal of this machine is here; open it."""

    def __init__(self, machine: str) -> None:
        super().__init__("machine-exists", f"This host has a journal of machine {machine} already")


class JournalUnwritable(Refused):
    """The space that an attempt needs to end on a full disk cannot be had; nothing was written."""

    def __init__(self, machine: str, cause: OSError) -> None:
        super().__init__(
            "journal-unwritable",
            f"The journal of machine {machine} has no room for a new attempt: {cause.strerror or cause}",
            "Free space in state_dir, or make it writable",
        )


class JournalMoved(Stale):
    """Another controller has appended since this one last did; nothing was written. Close this journal."""

    def __init__(self, machine: str) -> None:
        super().__init__("journal-moved", f"Another controller writes the journal of machine {machine}")


class JournalUnreadable(Unreachable):
    """Nothing is known of the machine at this host; that is not the same as knowing that it is not here."""

    def __init__(self, machine: str, why: str) -> None:
        super().__init__(
            "journal-unreadable",
            f"The journal of machine {machine} cannot be read: {why}",
            "Keep the file, and ask the machine's other host: viaduct doctor",
        )


class JournalBusy(Unreachable):
    """Another process has kept the journal's lock past the deadline; nothing was written."""

    def __init__(self, machine: str) -> None:
        super().__init__("journal-busy", f"Another process keeps the lock of the journal of machine {machine}")


class JournalUncertain(Unresolved):
    """A write or a flush failed: act neither as if the record stood nor as if it did not."""

    def __init__(self, machine: str, wanted: str, cause: OSError) -> None:
        super().__init__(
            "journal-uncertain",
            f"Whether {wanted} stands in the journal of machine {machine} is unknown: {cause.strerror or cause}",
            "Repair the disk under state_dir; the machine stays as it is",
        )
