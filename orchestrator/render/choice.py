"""How a destination was chosen, as a table: what stood against each host, or what it was ranked by."""

from rich.console import Console
from rich.table import Table

from orchestrator.choice import Considered, Figures
from orchestrator.preflight import Preflight
from orchestrator.render.quantities import rate, size

_STYLES = {"chosen": "green", "passes": "cyan", "blocked": "red", "excluded": "yellow"}


def show_choice(console: Console, found: Preflight) -> None:
    """Print every host in the order in which they would be taken, what it was ranked by, and what it did not say."""
    considered = [one.considered for one in found.candidates if one.considered is not None]
    if not considered:
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("host", "", "free after", "machines", "out, in", "link's share", "room", ""):
        table.add_column(heading)
    for one in considered:
        table.add_row(*_row(one))
    console.print(table)
    console.print(f"[dim]{_reason(considered)}[/dim]", highlight=False)


def _row(one: Considered) -> tuple[str, ...]:
    figures = one.figures
    return (
        one.host,
        f"[{_STYLES[one.verdict]}]{one.verdict}[/{_STYLES[one.verdict]}]",
        _free(figures),
        _count(figures.machines),
        f"{_count(figures.attempts_out)}, {_count(figures.attempts_in)}",
        _link(figures),
        _percent(figures.room),
        _remark(one),
    )


def _free(figures: Figures) -> str:
    if figures.memory_budget_bytes is None or figures.free_share_after is None:
        return "?" if figures.memory_free_bytes is None else f"none: {size(figures.memory_free_bytes)} now"
    return f"{_percent(figures.free_share_after)} of {size(figures.memory_budget_bytes)}"


def _link(figures: Figures) -> str:
    known = "" if figures.link_bytes_per_s is None else f" of {rate(figures.link_bytes_per_s)}"
    return f"{_percent(figures.link_share)}{known}"


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.3g} %"


def _remark(one: Considered) -> str:
    if one.obstacles:
        return ", ".join(dict.fromkeys(notice.code for notice in one.obstacles))
    return f"does not say: {', '.join(one.unknown)}" if one.unknown else ""


def _reason(considered: list[Considered]) -> str:
    chosen = next((one for one in considered if one.verdict == "chosen"), None)
    if chosen is None:
        return "No host can take it."
    others = [one for one in considered if one.verdict == "passes"]
    if not others:
        return f"{chosen.host} is the only one that can take it."
    if len({bool(one.unknown) for one in (chosen, others[0])}) > 1:
        return f"{chosen.host} would be taken: of those that can take it, it says what it offers and has to do."
    return (
        f"{chosen.host} would be taken, before {', '.join(one.host for one in others)}: it has most room, or as much."
    )
