"""What a person reads when something fails: one line saying what and why, one saying what to do; and the exit code."""

import asyncio
from dataclasses import dataclass
from typing import Final, TextIO

import click

from orchestrator.documents.listings import ErrorDocument
from vm_migration.errors import MigrationError
from vmm.assembly.document_faults import InvalidDocument

USAGE: Final = 2
INTERRUPTED: Final = 5
_WHAT_TO_DO: Final = {
    1: "This is a fault of ours: run it again with --debug and report what it prints",
    2: "See what is accepted: viaduct COMMAND --help",
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

    def document(self) -> ErrorDocument:
        """Return `viaduct.error.v1`."""
        return ErrorDocument("viaduct.error.v1", self.code, self.message, self.hint, self.exit_code)

    def write(self, stream: TextIO) -> None:
        """Write the two lines."""
        stream.write(f"error: {self.message}\n  fix: {self.hint}\n")
        stream.flush()


def complain(code: str, message: str, hint: str, exit_code: int) -> Complaint:
    """Return a complaint in which nothing breaks a line and no line is empty."""
    return Complaint(code, _one_line(message), _one_line(hint) or _WHAT_TO_DO.get(exit_code, _WHAT_TO_DO[1]), exit_code)


def complaint(error: BaseException) -> Complaint:
    """Return what to say of any error; one that is not ours to foresee is an internal error, without its traceback."""
    error = _innermost(error)
    match error:
        case MigrationError():
            return complain(error.code, error.message, error.hint, error.exit_code)
        case InvalidDocument():
            return complain("invalid-document", _faults(error), "Correct these keys and ask again", USAGE)
        case click.UsageError():
            return complain("usage", error.format_message(), _usage_hint(error), USAGE)
        case click.ClickException():
            return complain("usage", error.format_message(), "", USAGE)
        case click.Abort() | KeyboardInterrupt() | asyncio.CancelledError():
            return complain("interrupted", "Interrupted", "Nothing is left behind; ask again", INTERRUPTED)
        case _:
            return complain("internal", f"Internal error: {type(error).__name__}: {error}", "", 1)


def _innermost(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep: one fault is told, not its echoes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _usage_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx is not None else "viaduct"
    return f"See what is accepted: {path} --help"


def _faults(error: InvalidDocument) -> str:
    parts = []
    for file in dict.fromkeys(fault.file for fault in error.faults):
        found = [str(fault) for fault in error.faults if fault.file == file]
        count = f"{len(found)} faults: " if len(found) > 1 else ""
        parts.append(f"{file}: {count}{'; '.join(found)}")
    return "; ".join(parts)
