"""`viaduct lab`: run scenarios, list them, and print the documents' matrix."""

import contextlib
from collections.abc import Iterator

import click
from rich.console import Console

from lab.catalogue import find, shipped_files
from lab.document import LabDocument, document_of, row_of, scenarios_document
from lab.matrix import Say, matrix, through_agents
from lab.rehearsal.rehearsal import rehearse
from lab.table import show_rows, show_scenarios
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.daemon.complaint import complain

_FOUND_SOMETHING = 8


@click.group()
def lab() -> None:
    """Reproduce what the documents say about dirty pages behind a vIOMMU."""


@lab.command("list")
@answering
async def list_scenarios(call: Invocation) -> Answer:
    """Show the scenarios that are shipped."""
    del call
    files = shipped_files()

    def show(console: Console) -> None:
        show_scenarios(console, files)

    return Answer(scenarios_document([one for scenarios in files.values() for one in scenarios]), show)


@lab.command("run")
@click.argument("scenario", nargs=-1, required=True)
@click.option("--in-process", is_flag=True, help="In this process, in virtual time: the same on every run.")
@answering
async def run(call: Invocation, scenario: tuple[str, ...], *, in_process: bool) -> Answer:
    """Run each SCENARIO, a file or the name of a shipped one; exit code 8 when one is not as expected.

    Without --in-process the machines are real processes that move between two hosts on loopback.
    """
    chosen = [one for named in scenario for one in find(named)]
    if in_process:
        rows = [row_of(one, one.document.expect, rehearse(one), "in-process") for one in chosen]
        return answer_of(document_of(rows))
    with working(call) as say:
        return answer_of(document_of(await through_agents(chosen, say)))


@lab.command("matrix")
@answering
async def matrix_of_everything(call: Invocation) -> Answer:
    """Run the documents' own matrix through agents, and every other scenario in process; 8 as `run`."""
    with working(call) as say:
        return answer_of(document_of(await matrix(say)))


@contextlib.contextmanager
def working(call: Invocation) -> Iterator[Say]:
    """Show on a terminal what is being run; a pipe hears nothing of it."""
    with call.err.status("starts two hosts") if call.err.is_terminal else contextlib.nullcontext() as status:

        def say(scenario: str) -> None:
            if status is not None:
                status.update(f"runs {scenario}")

        yield say


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
