"""What a migration did, and what stands against one, as tables."""

from rich.console import Console
from rich.table import Table

from orchestrator.attempt import Attempt, Outcome
from orchestrator.limits import limits_of
from orchestrator.preflight import Candidate, Preflight
from orchestrator.render.choice import show_choice
from orchestrator.render.forecast import all_alike, beside_outcome, foretold, in_all, standing_still
from orchestrator.render.notices import show_notices
from orchestrator.render.quantities import rate, size, span
from orchestrator.render.travelling import bandwidth_limit, downtime_limit, travelled
from orchestrator.render.updates import show_update
from orchestrator.result import has_range, rounds_closed
from vm_migration.api.v1 import types_pb2

_STYLE = {Outcome.COMPLETED: "green", Outcome.CANCELLED: "yellow", Outcome.REFUSED: "yellow"}


def show_result(console: Console, attempt: Attempt) -> None:
    """Print one attempt."""
    if attempt.asked.update:
        show_update(console, attempt)
        return
    outcome = attempt.outcome
    style = _STYLE.get(outcome, "red") if outcome is not None else "cyan"
    words = outcome.value if outcome is not None else f"open: {attempt.phase}"
    way = f"{attempt.source} -> {attempt.destination}".strip()  # an order without a row has no source
    console.print(f"[bold]{attempt.name}[/bold]  {way}  [{style}]{words}[/{style}]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("attempt", f"{attempt.attempt}, epoch {attempt.epoch}" if attempt.epoch else attempt.attempt)
    for name, text in _facts(attempt):
        table.add_row(name, text)
    console.print(table)
    _show_rounds(console, attempt)
    show_notices(console, attempt.blockers, attempt.warnings)


def show_preflight(console: Console, found: Preflight, *, explain: bool) -> None:
    """Print what was found; `explain` tells of every host, and how one is chosen, else of the one that matters."""
    chosen = found.chosen
    told = found.candidates if explain or chosen is None else (chosen,)
    for one in told:
        word = "[green]can move[/green]" if one.passes else "[red]cannot move[/red]"
        console.print(f"[bold]{found.machine.name}[/bold]  {found.machine.host} -> {one.host}  {word}")
        _show_expected(console, one)
        show_notices(console, one.blockers, one.warnings)
    if explain:
        show_choice(console, found)


def _facts(attempt: Attempt) -> list[tuple[str, str]]:
    report = attempt.report
    if report is None:
        return []
    facts = [("total", span(report.total_ms)), ("prepare", span(attempt.prepare_ms))]
    if attempt.outcome == Outcome.COMPLETED and report.HasField("downtime"):
        down = report.downtime
        parts = (
            ("pause", down.pause_ms),
            ("last round", down.last_round_ms),
            ("device state", down.device_state_ms),
            ("verify", down.verify_ms),
            ("handoff", down.handoff_ms),
            ("resume", down.resume_ms),
        )
        clock = "exact, one clock" if down.shared_clock else f"at most; {span(down.uncertainty_ms)} may be the link's"
        facts.append(("downtime", f"{span(down.downtime_ms)} ({clock})"))
        facts.append(("", ", ".join(f"{name} {span(value)}" for name, value in parts)))
        if attempt.expected is not None:
            words = beside_outcome(attempt.expected, report.total_ms, down.downtime_ms)
            facts.append(("expected", f"{words}; tuned since" if limits_of(attempt).tuned else words))
    elif attempt.expected is not None:
        facts.append(("expected", foretold(attempt.expected)))
    facts.append(("limits", f"downtime {downtime_limit(attempt)}; bandwidth {bandwidth_limit(attempt)}"))
    facts.append(("memory", f"{size(report.ram_bytes)}, {size(report.wire_bytes)} on the wire"))
    if words := travelled(report):
        facts.append(("travelled", words))
    if report.pages_verified or report.pages_mismatched:
        told = f"{report.pages_verified} pages, {report.pages_mismatched} differ, by {report.verified_by or 'none'}"
        facts.append(("verified", told))
    if report.HasField("guest"):
        guest = report.guest
        rates = f"CPU {rate(guest.dirty_bytes_per_s)}, DMA {rate(guest.dma_bytes_per_s)}"
        facts.append(("guest", f"{guest.jobs_done} jobs, {guest.errors} errors, {rates}"))
    return facts


def _show_rounds(console: Console, attempt: Attempt) -> None:
    if attempt.report is None or not attempt.report.rounds:
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("round", "dirty", "sent", "zero", "on the wire", "took", "dirtied", "wire"):
        table.add_column(heading, justify="right")
    for one in attempt.report.rounds:
        table.add_row(
            str(one.round),
            str(one.dirty_pages),
            str(one.sent_pages),
            str(one.zero_pages),
            size(one.wire_bytes),
            span(one.ms),
            rate(one.dirty_bytes_per_s),
            rate(one.wire_bytes_per_s),
        )
    console.print(table)
    closed = rounds_closed(attempt.report)
    if closed > len(attempt.report.rounds):
        console.print(f"[dim]{len(attempt.report.rounds)} of {closed} rounds, evenly spaced[/dim]")


def _show_expected(console: Console, one: Candidate) -> None:
    if one.expected is None:
        return
    expected = one.expected
    never = "" if expected.converges or not has_range(expected) else "; [yellow]it may never fit the limit[/yellow]"
    console.print(
        f"  expected: {expected.rounds} rounds, {in_all(expected)} in all, of which "
        f"{span(expected.prepare_ms)} to prepare; downtime {standing_still(expected)}{never}",
        highlight=False,
    )
    if len(one.profiles) > 1 and not all_alike(one.profiles):
        _show_profiles(console, one.profiles)
    elif len(one.profiles) > 1:
        console.print(f"  the same under {', '.join(each.profile for each in one.profiles)}", highlight=False)


def _show_profiles(console: Console, profiles: tuple[types_pb2.Expected, ...]) -> None:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("  profile", "rounds", "in all", "downtime", ""):
        table.add_column(heading)
    for each in profiles:
        fits = "" if each.converges else "[yellow]may never fit the limit[/yellow]"
        table.add_row(f"  {each.profile}", str(each.rounds), in_all(each), standing_still(each), fits)
    console.print(table)
