"""What the doctor found, for a person: hosts, machines and their copies, then what is wrong and what to do."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.documents.recovery import CopyDocument, DoctorDocument, FindingDocument

_STATES = {"running": "green", "paused": "green", "moving": "cyan", "lost": "dim"}


def show_diagnosis(console: Console, document: DoctorDocument) -> None:
    """Print all of it."""
    _show_hosts(console, document)
    _show_machines(console, document)
    for one in document.findings:
        show_finding(console, one)
    console.print(verdict(document.findings))


def show_finding(console: Console, one: FindingDocument) -> None:
    """Print a finding in two lines, as errors are printed."""
    style = "red" if one.severity == "problem" else "yellow"
    console.print(
        f"[{style}]{one.severity}[/{style}] [bold]{one.code}[/bold]: {escape(one.message)}",
        soft_wrap=not console.is_terminal,
    )
    console.print(f"    fix: {escape(one.hint)}\n", soft_wrap=not console.is_terminal)


def verdict(findings: Sequence[FindingDocument]) -> str:
    """Return the last line: how many problems and notices there are."""
    problems = sum(one.severity == "problem" for one in findings)
    notices = len(findings) - problems
    counted = [_count(number, word) for number, word in ((problems, "problem"), (notices, "notice")) if number]
    style = "red" if problems else "green"
    return f"[{style}]{', '.join(counted) or 'Nothing is wrong'}[/{style}]"


def _show_hosts(console: Console, document: DoctorDocument) -> None:
    table = _table("host", "source agent", "dest agent", "version")
    for one in document.hosts:
        table.add_row(one.host, _word(one.source), _word(one.dest), one.version or "")
    console.print(table)
    console.print()


def _show_machines(console: Console, document: DoctorDocument) -> None:
    if not document.machines:
        console.print("no machines\n")
        return
    table = _table("machine", "owner", "state", "epoch", "copy on", "journal", "process")
    for one in document.machines:
        style = _STATES.get(one.state, "red")
        head = (escape(one.name), one.owner or "-", f"[{style}]{one.state}[/{style}]", str(one.epoch))
        for copy in one.copies or (None,):
            facts = ("", "", "") if copy is None else (copy.host, copy.state or "unreadable", _process(copy))
            table.add_row(*head, *facts)
            head = ("", "", "", "")
    console.print(table)
    console.print()


def _process(copy: CopyDocument) -> str:
    if copy.process == "alive":
        return copy.run_state or "does not answer"
    return "" if copy.process == "unknown" else "gone"


def _word(word: str) -> str:
    return f"[green]{word}[/green]" if word == "answers" else f"[red]{word}[/red]"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table
