"""What stands against an attempt, and what is to be known of it, a line each."""

from rich.console import Console

from orchestrator.attempt import Notice


def show_notices(console: Console, blockers: tuple[Notice, ...], warnings: tuple[Notice, ...]) -> None:
    """Print blockers, then warnings."""
    for kind, style, notices in (("blocker", "red", blockers), ("warning", "yellow", warnings)):
        for one in notices:
            device = f" ({one.device})" if one.device else ""
            console.print(f"  [{style}]{kind}[/{style}] {one.code}{device}: {one.message}", highlight=False)
