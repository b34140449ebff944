"""`viaduct doctor`: compares every journal of the site, and says what is wrong and what to do. It changes nothing."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from orchestrator.diagnosis.bundle import require_new, write_bundle
from orchestrator.diagnosis.certificates import certificate_findings
from orchestrator.diagnosis.document import doctor_document
from orchestrator.diagnosis.examination import examine
from orchestrator.diagnosis.services import service_findings
from orchestrator.render.diagnosis import show_diagnosis
from orchestrator.site import agents_of
from vm_migration.command_line.invocation import Answer, Invocation, answering

FOUND: Final = 8


@click.command("doctor")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Write all of it to a new tar.gz too.")
@answering
async def doctor(call: Invocation, bundle: Path | None) -> Answer:
    """Say where every machine is and what is wrong with it; exit code 8 when there is a problem."""
    if bundle is not None:
        require_new(bundle)
    configuration = call.configuration()
    async with agents_of(configuration) as agents:
        machines, services, certificates = await asyncio.gather(
            examine(agents), service_findings(configuration), certificate_findings(configuration, datetime.now(UTC))
        )
    found = machines.with_more((*services, *certificates))
    document = doctor_document(configuration.site.name, found)
    if bundle is not None:
        await asyncio.to_thread(write_bundle, bundle, document, found, configuration, time.time())

    def show(console: Console) -> None:
        show_diagnosis(console, document)
        if bundle is not None:
            console.print(f"All of it is in {bundle}, with no secret in it")

    return Answer(document, show, FOUND if found.problems else 0)
