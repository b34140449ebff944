"""What a person reads when a program fails: one line saying what and why, one saying what to do; and the exit code.

::

    error: Another process listens on 127.0.0.1:7001
      fix: Stop it
"""

from dataclasses import dataclass
from typing import Final, TextIO

from vm_migration.errors import InvalidInput, MigrationError, innermost
from vmm.assembly.document_faults import InvalidDocument

_WHAT_TO_DO: Final = {
    1: "This is a fault of ours: run it again with --debug and report what it prints",
    2: "See what is accepted: --help",
    3: "Nothing was done; remove what the first line names and ask again",
    4: "The machine runs on its source; migrate again",
    5: "The machine runs on its source",
    6: "When its agents answer again: viaduct recover",
    7: "Create the machine again from its specification",
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """The two lines, the stable code, and how the process exits."""

    code: str
    message: str
    hint: str
    exit_code: int

    def write(self, stream: TextIO) -> None:
        """Write the two lines."""
        stream.write(f"error: {self.message}\n  fix: {self.hint}\n")
        stream.flush()


def complain(code: str, message: str, hint: str, exit_code: int) -> Complaint:
    """Return a complaint in which nothing breaks a line and no line is empty."""
    return Complaint(code, _one_line(message), _one_line(hint) or _WHAT_TO_DO.get(exit_code, _WHAT_TO_DO[1]), exit_code)


def complaint(error: BaseException) -> Complaint:
    """Return what to say of any error; one that nobody foresaw is told by its kind alone: its text may hold secrets."""
    cause = innermost(error)
    match cause:
        case MigrationError():
            return complain(cause.code, cause.message, cause.hint, cause.exit_code)
        case InvalidDocument():
            hint = "Correct these keys and ask again"
            return complain("invalid-document", _faults(cause), hint, InvalidInput.exit_code)
        case _:
            return complain("internal", f"Internal error: {type(cause).__name__}", "", 1)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _faults(error: InvalidDocument) -> str:
    parts = []
    for file in dict.fromkeys(fault.file for fault in error.faults):
        found = [str(fault) for fault in error.faults if fault.file == file]
        count = f"{len(found)} faults: " if len(found) > 1 else ""
        parts.append(f"{file}: {count}{'; '.join(found)}")
    return "; ".join(parts)
