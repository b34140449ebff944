"""Machines, attempts and certificates as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.documents.listings import (
    AttemptDocument,
    DirtyRateDocument,
    EvacuationLineDocument,
    EventDocument,
    MachineDocument,
    PkiDocument,
    SilentHostDocument,
)
from orchestrator.render.quantities import rate, size


def show_machines(
    console: Console, machines: Sequence[MachineDocument], silent: Sequence[SilentHostDocument] = ()
) -> None:
    """Print machines, and the hosts of which nothing is known."""
    rows = [
        (one.name, one.host, one.run_state, one.state, str(one.epoch), size(one.ram_bytes), one.attempt or "")
        for one in machines
    ]
    show_table(console, ("machine", "host", "runs", "state", "epoch", "memory", "attempt"), rows, "no machines")
    _show_silent(console, silent)


def show_machine(console: Console, machine: MachineDocument) -> None:
    """Print one machine."""
    rows = [
        ("machine", machine.name),
        ("uuid", machine.machine),
        ("host", f"{machine.host}, epoch {machine.epoch}, {machine.state}"),
        ("runs", machine.run_state),
        ("memory", size(machine.ram_bytes)),
    ]
    if machine.guest is not None:
        guest = machine.guest
        rows.append(("guest", f"{guest.jobs_done} jobs, {guest.errors} errors"))
        rows.append(("dirties", f"CPU {rate(guest.dirty_bytes_per_s)}, DMA {rate(guest.dma_bytes_per_s)}"))
    if machine.attempt:
        rows.append(("attempt", machine.attempt))
    show_facts(console, rows)
    for one in machine.warnings:
        console.print(f"  [yellow]warning[/yellow] {one.code}: {escape(one.message)}")


def show_dirty_rate(console: Console, found: DirtyRateDocument) -> None:
    """Print what a machine dirtied in a window."""
    written = f"CPU {found.cpu_pages} pages, DMA {found.dma_pages} pages"
    rows = [
        ("machine", f"{found.machine} on {found.host}"),
        ("window", f"{found.window_ms:.0f} ms"),
        ("dirtied", f"{rate(found.dirty_bytes_per_s)}: {found.pages} pages"),
        ("by", "whomever: samples of its memory" if found.sampled else written),
    ]
    show_facts(console, rows)
    if not found.exact and not found.sampled:
        console.print("  [yellow]a tracker reports everything that it maps, always[/yellow]")
    if found.failure is not None:
        console.print(f"  [red]pages may be missing[/red]: {escape(found.failure)}")


def show_attempts(
    console: Console, attempts: Sequence[AttemptDocument], silent: Sequence[SilentHostDocument] = ()
) -> None:
    """Print attempts, newest first, and the hosts of which nothing is known."""
    rows = [
        (
            one.attempt[:8],
            one.name,
            f"{one.source} -> {one.destination}" if one.update is None else f"on {one.source}",
            one.phase,
            f"{one.percent} %",
            one.outcome or "",
            one.driver,
            one.created,
        )
        for one in attempts
    ]
    headings = ("attempt", "machine", "way", "phase", "done", "outcome", "driver", "since")
    show_table(console, headings, rows, "no attempts")
    _show_silent(console, silent)


def show_evacuations(console: Console, evacuations: Sequence[EvacuationLineDocument]) -> None:
    """Print evacuations and restores, newest first; nothing without any."""
    rows = [
        (
            one.evacuation[:11],
            f"{one.kind} {one.host}",
            f"{one.moved} of {one.machines}",
            f"{one.percent} %",
            one.outcome or "",
            one.driver,
            one.created,
        )
        for one in evacuations
    ]
    if rows:
        show_table(console, ("evacuation", "what", "moved", "done", "outcome", "driver", "since"), rows, "")


def show_events(console: Console, events: Iterable[EventDocument]) -> None:
    """Print transitions in order."""
    rows = [(str(one.sequence), one.at, one.phase, one.outcome or "", escape(one.reason)) for one in events]
    show_table(console, ("", "at", "phase", "outcome", "reason"), rows, "no events")


def show_certificate(console: Console, one: PkiDocument) -> None:
    """Print one certificate."""
    rows = [
        ("certificate", one.certificate),
        ("key", one.key or ""),
        ("identity", one.identity or ("the site's authority" if one.authority else "nobody")),
        ("names", ", ".join(one.names)),
        ("valid", f"{one.not_before} to {one.not_after}"),
        ("sha256", one.sha256),
    ]
    show_facts(console, [row for row in rows if row[1]])


def _show_silent(console: Console, silent: Sequence[SilentHostDocument]) -> None:
    for host in silent:
        console.print(f"[yellow]{host.host} did not answer[/yellow]: {escape(host.error.message)}")


def show_table(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print rows under their headings, or that there are none."""
    if not rows:
        console.print(f"[dim]{nothing}[/dim]")
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and what they are."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)
