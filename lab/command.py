"""`viaduct lab`: run scenarios, list them, and print the documents' matrix."""

import contextlib
from collections.abc import Iterator

import click
from rich.console import Console

from lab.catalogue import find, shipped_files
from lab.document import LabDocument, LabRow, document_of, row_of, scenarios_document
from lab.matrix import Say, matrix, through_agents
from lab.rehearsal.rehearsal import rehearse
from lab.scenario import Scenario
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
    chosen: list[Scenario] = []
    for named in scenario:
        chosen += [one for one in find(named) if one not in chosen]
    if in_process:
        with working(call, "reads the scenarios") as say:
            return answer_of(document_of([rehearsed_row(one, say) for one in chosen]))
    with working(call) as say:
        return answer_of(document_of(await through_agents(chosen, say)))


@lab.command("matrix")
@answering
async def matrix_of_everything(call: Invocation) -> Answer:
    """Run the documents' own matrix through agents, and every other scenario in process; 8 as `run`."""
    with working(call) as say:
        return answer_of(document_of(await matrix(say)))


def rehearsed_row(scenario: Scenario, say: Say) -> LabRow:
    """Run a scenario in this process."""
    say(scenario.name)
    return row_of(scenario, scenario.document.expect, rehearse(scenario), "in-process")


@contextlib.contextmanager
def working(call: Invocation, first: str = "starts two hosts") -> Iterator[Say]:
    """Show on a terminal what is being done, `first` and then which scenario; a pipe hears nothing of it."""
    with call.err.status(first) if call.err.is_terminal else contextlib.nullcontext() as status:

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
