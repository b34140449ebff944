"""The rows of a run as a table for people: readable at 120 columns, and wider where the terminal is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.document import LabRow
from lab.scenario import Scenario

_NARROW: Final = 26
"""What the verdict, the two columns of numbers and the spaces between columns take."""
_LEAST: Final = 14
_LONGEST_SWITCH: Final = 34


def show_rows(console: Console, rows: Sequence[LabRow]) -> None:
    """Print a line a row, named by its scenario, and below it what was expected and not seen."""
    failing = any(row.error for row in rows)
    widest = max((len(text) for row in rows for text in (row.scenario, row.configuration)), default=0)
    first = max(min(widest, _LONGEST_SWITCH, console.width // 3), _LEAST)
    share = max((console.width - _NARROW - first) // (3 if failing else 2) + 1, _LEAST)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("configuration", width=first, overflow="fold")
    table.add_column("expected", max_width=share, overflow="fold")
    table.add_column("seen", max_width=share, overflow="fold")
    table.add_column("pages\nlost", justify="right", no_wrap=True)
    table.add_column("flushes", justify="right", no_wrap=True)
    table.add_column("error", overflow="fold")
    for row in rows:
        verdict = "[green]ok[/green]" if row.ok else "[red]no[/red]"
        name = "\n".join(f"[bold]{escape(line)}[/bold]" for line in _folded(row.scenario, first))
        lost = "-" if row.pages_lost is None else str(row.pages_lost)
        words = map(escape, (row.expected, row.seen))
        table.add_row(
            verdict, f"{name}\n{escape(row.configuration)}", *words, lost, str(row.flushes), escape(row.error)
        )
    console.print(table)
    for row in rows:
        for missing in row.disagreements:
            console.print(f"[red]{row.scenario}[/red]: {escape(missing)}")


def show_scenarios(console: Console, files: Mapping[str, Sequence[Scenario]]) -> None:
    """Print the scenarios that are shipped, file by file: a file's name runs all of its cases."""
    longest = max(len(one.name) for scenarios in files.values() for one in scenarios) + 2
    table = Table("scenario", "what it shows", box=None, pad_edge=False)
    table.columns[0].width = min(longest, console.width // 2)
    for file, scenarios in files.items():
        first = scenarios[0].document
        said = f" [dim]({escape('; '.join(first.sources))})[/dim]" if first.sources else ""
        table.add_row(f"[bold]{escape(file)}[/bold]", escape(first.title) + said)
        if len(scenarios) > 1:
            for scenario in scenarios:
                own = scenario.document.title
                table.add_row(f"  {escape(scenario.name)}", "" if own == first.title else escape(own))
    console.print(table)


def _folded(name: str, width: int) -> Iterator[str]:
    """Yield a name in lines of a width, cut behind its hyphens where it has any."""
    line = ""
    for part in name.replace("-", "-\0").split("\0"):
        if line and len(line) + len(part) > width:
            yield line
            line = ""
        line += part
    yield line
