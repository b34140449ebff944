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
    document = VersionDocument("viaduct.version.v1", installed("viaduct"), platform.python_version())

    def show(console: Console) -> None:
        console.print(f"viaduct {document.version} (Python {document.python})")

    return Answer(document, show)
