"""`viaduct version`."""

import platform
from importlib.metadata import version as installed

import click
from rich.console import Console

from orchestrator.documents.listings import VersionDocument
from vm_migration.command_line.invocation import Answer, Invocation, answering


@click.command("version")
@answering
async def version(call: Invocation) -> Answer:
    """Print the version."""
    del call

    def show(console: Console) -> None:
        console.print(version_line())

    return Answer(_document(), show)


def version_line() -> str:
    """Return the version for people, of Python too."""
    document = _document()
    return f"viaduct {document.version} (Python {document.python})"


def _document() -> VersionDocument:
    return VersionDocument("viaduct.version.v1", installed("viaduct"), platform.python_version())
