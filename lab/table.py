"""The rows of a run as a table for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.document import LabRow
from lab.scenario import Scenario


def show_rows(console: Console, rows: Sequence[LabRow]) -> None:
    """Print one line a row, and below it what was expected and not seen."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "scenario", "configuration", "expected", "seen", "lost", "flushes", "error"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        verdict = "[green]ok[/green]" if row.ok else "[red]not ok[/red]"
        lost = "-" if row.pages_lost is None else str(row.pages_lost)
        cells = (row.scenario, row.configuration, row.expected, row.seen, lost, str(row.flushes), row.error)
        table.add_row(verdict, *map(escape, cells))
    console.print(table)
    for row in rows:
        for missing in row.disagreements:
            console.print(f"[red]{row.scenario}[/red]: {escape(missing)}")


def show_scenarios(console: Console, scenarios: Sequence[Scenario]) -> None:
    """Print the scenarios that are shipped."""
    table = Table("scenario", "what it shows", "where it is said", box=None, pad_edge=False)
    for scenario in scenarios:
        table.add_row(scenario.name, escape(scenario.document.title), escape("; ".join(scenario.document.sources)))
    console.print(table)
