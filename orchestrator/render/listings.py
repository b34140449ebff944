"""Hosts, machines, attempts and certificates as tables."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.documents.listings import (
    AttemptDocument,
    DirtyRateDocument,
    EventDocument,
    HostDocument,
    MachineDocument,
    PkiDocument,
    SideDocument,
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
    _show(console, ("machine", "host", "runs", "state", "epoch", "memory", "attempt"), rows, "no machines")
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
    _show_facts(console, rows)
    for one in machine.warnings:
        console.print(f"  [yellow]warning[/yellow] {one.code}: {one.message}")


def show_dirty_rate(console: Console, found: DirtyRateDocument) -> None:
    """Print what a machine dirtied in a window."""
    rows = [
        ("machine", f"{found.machine} on {found.host}"),
        ("window", f"{found.window_ms:.0f} ms"),
        ("dirtied", f"{rate(found.dirty_bytes_per_s)}: {found.pages} pages"),
        ("by", f"CPU {found.cpu_pages} pages, DMA {found.dma_pages} pages"),
    ]
    _show_facts(console, rows)
    if not found.exact:
        console.print("  [yellow]a tracker reports everything that it maps, always[/yellow]")
    if found.failure is not None:
        console.print(f"  [red]pages may be missing[/red]: {found.failure}")


def show_hosts(console: Console, hosts: Sequence[HostDocument]) -> None:
    """Print hosts and whether their agents answer."""
    rows = [(one.host, _side(one.source), _side(one.dest), _memory(one)) for one in hosts]
    _show(console, ("host", "source agent", "dest agent", "memory in use"), rows, "no hosts")


def show_attempts(
    console: Console, attempts: Sequence[AttemptDocument], silent: Sequence[SilentHostDocument] = ()
) -> None:
    """Print attempts, newest first, and the hosts of which nothing is known."""
    rows = [
        (
            one.attempt[:8],
            one.name,
            f"{one.source} -> {one.destination}",
            one.phase,
            f"{one.percent} %",
            one.outcome or "",
            one.driver,
            one.created,
        )
        for one in attempts
    ]
    headings = ("attempt", "machine", "way", "phase", "done", "outcome", "driver", "since")
    _show(console, headings, rows, "no attempts")
    _show_silent(console, silent)


def show_events(console: Console, events: Iterable[EventDocument]) -> None:
    """Print transitions in order."""
    rows = [(str(one.sequence), one.at, one.phase, one.outcome or "", one.reason) for one in events]
    _show(console, ("", "at", "phase", "outcome", "reason"), rows, "no events")


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
    _show_facts(console, [row for row in rows if row[1]])


def _show_silent(console: Console, silent: Sequence[SilentHostDocument]) -> None:
    for host in silent:
        console.print(f"[yellow]{host.host} did not answer[/yellow]: {host.error.message}")


def _show(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    if not rows:
        console.print(f"[dim]{nothing}[/dim]")
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _show_facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _side(side: SideDocument) -> str:
    return f"{side.address} {side.version}" if side.answers else f"[yellow]{side.address} does not answer[/yellow]"


def _memory(host: HostDocument) -> str:
    side = host.source if host.source.answers else host.dest
    if side.memory_in_use_bytes is None or side.memory_budget_bytes is None:
        return "unknown"
    return f"{size(side.memory_in_use_bytes)} of {size(side.memory_budget_bytes)}"
