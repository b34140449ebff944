"""`viaduct report`: the picture of one migration, as a page that needs nothing but a browser."""

import asyncio
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.markup import escape

from orchestrator.documents.listings import ReportDocument
from orchestrator.picture.page import GENERATOR, page
from orchestrator.picture.report_file import require_writable, write_report
from orchestrator.site import open_desk
from vm_migration.command_line.invocation import Answer, Invocation, answering

_MARK: Final = f'content="{GENERATOR}"'


@click.command("report")
@click.argument("attempt")
@click.option(
    "--html",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where to write it; an earlier report is replaced, any other file is not.",
)
@answering
async def report(call: Invocation, attempt: str, *, file: Path) -> Answer:
    """Draw ATTEMPT, ended or not, as one page: its rounds, rates and downtime, beside what was expected."""
    require_writable(file, _MARK)
    async with open_desk(call.configuration()) as desk:
        found = await desk.attempt(attempt)
        events = await desk.events(found)
    written = await asyncio.to_thread(write_report, file, page(found, events))
    document = ReportDocument("viaduct.report.v1", found.attempt, str(written.file), written.bytes)

    def show(console: Console) -> None:
        console.print(f"The picture of {escape(found.name)} is in {escape(str(file))}", soft_wrap=True)

    return Answer(document, show)
