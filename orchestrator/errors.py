"""What the command says when something fails: as every program does, and what only a command line can do wrong."""

import asyncio
from typing import Final

import click

from orchestrator.documents.listings import ErrorDocument
from vm_migration.daemon.complaint import Complaint, complain
from vm_migration.daemon.complaint import complaint as complaint_of
from vm_migration.errors import innermost

USAGE: Final = 2
INTERRUPTED: Final = 5


def error_document(said: Complaint) -> ErrorDocument:
    """Return `viaduct.error.v1`."""
    return ErrorDocument("viaduct.error.v1", said.code, said.message, said.hint, said.exit_code)


def complaint(error: BaseException) -> Complaint:
    """Return what to say of any error, those of the command line among them."""
    cause = innermost(error)
    match cause:
        case click.UsageError():
            return complain("usage", cause.format_message(), _usage_hint(cause), USAGE)
        case click.ClickException():
            return complain("usage", cause.format_message(), "", USAGE)
        case click.Abort() | KeyboardInterrupt() | asyncio.CancelledError():
            return complain("interrupted", "Interrupted", "Nothing is left behind; ask again", INTERRUPTED)
        case _:
            return complaint_of(cause)


def _usage_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx is not None else "viaduct"
    return f"See what is accepted: {path} --help"
