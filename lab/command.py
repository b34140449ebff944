"""`viaduct lab`: run scenarios, list them, and print the documents' matrix."""

import click
from rich.console import Console

from lab.catalogue import find, shipped
from lab.document import LabDocument, document_of, row_of, scenarios_document
from lab.rehearsal.rehearsal import rehearse
from lab.table import show_rows, show_scenarios
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.complaint import complain
from vm_migration.errors import InvalidInput

_FOUND_SOMETHING = 8


@click.group()
def lab() -> None:
    """Reproduce what the documents say about dirty pages behind a vIOMMU."""


@lab.command("list")
@answering
async def list_scenarios(call: Invocation) -> Answer:
    """Show the scenarios that are shipped."""
    del call
    scenarios = shipped()

    def show(console: Console) -> None:
        show_scenarios(console, scenarios)

    return Answer(scenarios_document(scenarios), show)


@lab.command("run")
@click.argument("scenario", nargs=-1, required=True)
@click.option("--in-process", is_flag=True, help="In this process, in virtual time: the same on every run.")
@answering
async def run(call: Invocation, scenario: tuple[str, ...], *, in_process: bool) -> Answer:
    """Run each SCENARIO, a file or the name of a shipped one; exit code 8 when one is not as expected."""
    del call
    chosen = [one for named in scenario for one in find(named)]
    if not in_process:
        raise InvalidInput("not-yet", "Scenarios do not run through agents yet", "Add --in-process")
    return answer_of(document_of([row_of(one, one.document.expect, rehearse(one), "in-process") for one in chosen]))


def answer_of(document: LabDocument) -> Answer:
    """Return what a run of scenarios answers."""

    def show(console: Console) -> None:
        show_rows(console, document.rows)

    wrong = [row.scenario for row in document.rows if not row.ok]
    if not wrong:
        return Answer(document, show)
    count = f"{len(wrong)} of {len(document.rows)} scenarios are not as expected"
    hint = "Read what is said of them; --json says it all"
    return Answer(
        document, show, _FOUND_SOMETHING, complain("not-as-expected", f"{count}: {', '.join(wrong)}", hint, 8)
    )
