"""What stands against an attempt, and what is to be known of it, a line each."""

from rich.console import Console
from rich.markup import escape

from orchestrator.attempt import Notice


def show_notices(console: Console, blockers: tuple[Notice, ...], warnings: tuple[Notice, ...]) -> None:
    """Print blockers, then warnings."""
    for kind, style, notices in (("blocker", "red", blockers), ("warning", "yellow", warnings)):
        for one in notices:
            device = f" ({one.device})" if one.device else ""
            text = escape(f"{one.code}{device}: {one.message}")  # words of hosts, and of QEMU
            console.print(f"  [{style}]{kind}[/{style}] {text}", highlight=False)
