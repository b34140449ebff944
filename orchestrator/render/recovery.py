"""A recovery for a person: what is planned, what is waited for, what was done and what is still open."""

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from orchestrator.documents.recovery import RecoverDocument
from orchestrator.recovery.fenced_word import Plan, Word
from orchestrator.render.live_region import LiveRegion


class LiveWords(LiveRegion):
    """Shows what is being done on a terminal, while the context is entered; silent elsewhere."""

    def __init__(self, console: Console) -> None:
        """Use a console."""
        super().__init__(console, draws=console.is_terminal)

    def say(self, words: str) -> None:
        """Show what is waited for, a line each."""
        self.draw(Text(words, style="dim"))


def show_plan(console: Console, plan: Plan, word: Word) -> None:
    """Print what follows from an operator's word, before anything is done."""
    off = " and ".join((word.fenced, *word.also_off))
    console.print(f"Where [bold]{off}[/bold] is off, this follows:\n", soft_wrap=not console.is_terminal)
    for one in plan.steps:
        console.print(f"  [bold]{escape(one.name)}[/bold]  {escape(one.message)}", soft_wrap=not console.is_terminal)
        if one.missing:
            console.print(f"    [red]may be missing:[/red] {escape(one.missing)}", soft_wrap=not console.is_terminal)
    for refused in plan.refused:
        console.print(
            f"  [bold]{escape(refused.name)}[/bold]  [red]refused[/red]: {escape(refused.reason)}", soft_wrap=True
        )
        console.print(f"    fix: {escape(refused.hint)}", soft_wrap=not console.is_terminal)
    console.print()


def show_recovery(console: Console, document: RecoverDocument) -> None:
    """Print what was done, and what is still open with what to do."""
    for step in document.steps:
        word = "[green]done[/green]" if step.done else "[red]failed[/red]"
        console.print(
            f"{word}  [bold]{escape(step.name)}[/bold]  {escape(step.message)}", soft_wrap=not console.is_terminal
        )
        if step.error is not None:
            console.print(f"    why: {escape(step.error)}", soft_wrap=not console.is_terminal)
    for one in document.unresolved:
        console.print(
            f"[red]open[/red]  [bold]{escape(one.name)}[/bold]  {escape(one.reason)}", soft_wrap=not console.is_terminal
        )
        console.print(f"    fix: {escape(one.hint)}", soft_wrap=not console.is_terminal)
    if not document.unresolved:
        found = "Everything is settled" if document.steps else "Nothing was open"
        console.print(f"[green]{found}{' at the hosts that answered' if document.unheard else ''}[/green]")
    for host in document.unheard:
        console.print(f"[yellow]not heard[/yellow]  [bold]{host}[/bold]  it told nothing of what is open there")
        console.print("    fix: See why: viaduct doctor")
