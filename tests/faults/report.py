"""What a run came to, as a table for docs/reliability.md and as JSON beside the benchmarks: pure functions."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.faults.judgement import judge
from tests.faults.observation import Observation
from tests.faults.rows import QEMUS, Back, Deed, Ordered, Row, Victim, parse
from vm_migration.handover.states import State

BEGIN = "<!-- faults: begin -->"
END = "<!-- faults: end -->"


def document(seen: Sequence[Observation], run: Mapping[str, object]) -> dict[str, object]:
    """Return a run as JSON; `run` says when, where and with which seeds."""
    return {
        "schema": "viaduct.faults.v1",
        **run,
        "faults": len(seen),
        "survived": sum(not judge(one) for one in seen),
        "double_runs": sum(len(one.double_runs) for one in seen),
        "lost_pages": lost_pages(seen),
        "compared": sum(one.compared for one in seen),
        "seconds_to_full_rate": figures(full_rates(seen)),
        "seconds_to_full_rate_from_standstill": figures(full_rates(seen, standing=True)),
        "seconds_to_first_state": figures(first_states(seen)),
        "rows": [
            {
                "row": one.row,
                "ending": one.ending,
                "outcome": one.outcome,
                "settled_by": one.settled_by,
                "settled_s": round(one.settled_s, 3),
                "took_s": round(one.took_s, 3),
                "complaints": judge(one),
            }
            for one in sorted(seen, key=lambda one: one.row)
        ],
    }


def lost_pages(seen: Iterable[Observation]) -> int:
    """Count pages that differed: by any attempt's verification, and by the look at both hosts' memory."""
    return sum(
        one.mismatched + one.differing_pages + (one.second.pages_mismatched if one.second is not None else 0)
        for one in seen
    )


def full_rates(seen: Iterable[Observation], *, standing: bool = False) -> list[float]:
    """Return the times from a killed source agent to the guest's full rate.

    Where the guest stood still at that moment (`standing`) it waits until the agent is back: nobody else may resume it.
    """
    return [
        one.to_full_rate_s
        for one in seen
        if one.to_full_rate_s is not None and parse(one.row).deed is Deed.KILL and _stood_still(one) is standing
    ]


def first_states(seen: Iterable[Observation]) -> list[float]:
    """Return the times from a restart of the orchestrator to its first message of the attempt in flight."""
    return [one.to_first_state_s for one in seen if one.to_first_state_s is not None and _restarted(parse(one.row))]


def figures(values: Sequence[float]) -> dict[str, float]:
    """Return count, median and extremes; nothing but the count where there is nothing."""
    if not values:
        return {"count": 0}
    return {
        "count": len(values),
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def tables(seen: Sequence[Observation], run: Mapping[str, object]) -> str:
    """Return a run as Markdown."""
    lines = [
        f"Run of {run['date']} on {run['cpus']} CPUs, {run['kernel']}, {run['lanes']} sites side by side, "
        f"{run['minutes']} minutes, seed {run['seed']}:",
        "",
        "| measure | value |",
        "|---|---|",
        f"| faults injected into real processes | {len(seen)} |",
        f"| as they must be | {sum(not judge(one) for one in seen)} |",
        f"| double runs | {sum(len(one.double_runs) for one in seen)} |",
        f"| lost pages | {lost_pages(seen)} |",
        f"| looks at machine processes | {sum(one.looks for one in seen)} |",
        f"| both hosts' memory compared byte by byte past the agents | {sum(one.compared for one in seen)} times |",
        f"| second attempts that completed | {sum(_again(one) for one in seen)} "
        f"of {sum(one.second is not None for one in seen)} |",
        f"| killed source agent to the guest's full rate, killed while the guest ran | {_words(full_rates(seen))} |",
        f"| the same, killed while it stood still: until the agent is back, or later "
        f"| {_words(full_rates(seen, standing=True))} |",
        f"| restarted orchestrator to its first state message | {_words(first_states(seen))} |",
        *(f"| {name} | {value} |" for name, value in _simulated(run)),
        "",
        "| fault | at | rows | completed | stayed | lost | died | unresolved | not as it must be |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_kind: dict[tuple[Ordered, Deed, Victim], list[Observation]] = defaultdict(list)
    for one in seen:
        row = parse(one.row)
        by_kind[row.ordered, row.deed, row.victim].append(one)
    for ordered, deed, victim in sorted(by_kind, key=_in_order):
        mine = by_kind[ordered, deed, victim]
        endings = Counter(one.ending for one in mine)
        counts = [endings[name] for name in ("completed", "stayed", "lost", "died", "unresolved")]
        wrong = sum(bool(judge(one)) for one in mine)
        what = _kind(ordered) + deed
        lines.append(f"| {what} | {victim} | {len(mine)} | {' | '.join(map(str, counts))} | {wrong} |")
    return "\n".join(lines)


def _kind(ordered: Ordered) -> str:
    if ordered is Ordered.MOVE:
        return ""
    return f"{ordered}: " if ordered in QEMUS else f"update, {ordered}: "


def _in_order(kind: tuple[Ordered, Deed, Victim]) -> tuple[int, int, int]:
    ordered, deed, victim = kind
    return list(Ordered).index(ordered), list(Deed).index(deed), list(Victim).index(victim)


def between_markers(text: str, table: str) -> str:
    """Return a page with what stands between the markers replaced.

    Raises:
        ValueError: It has no markers.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _stood_still(one: Observation) -> bool:
    return any(moment.source == State.STOPPED for moment in one.moments)


def _restarted(row: Row) -> bool:
    return row.deed is Deed.KILL and row.victim is Victim.ORCHESTRATOR and row.back is not Back.NEVER


def _again(one: Observation) -> bool:
    return one.second is not None and one.second.outcome == "completed"


def _words(values: Sequence[float]) -> str:
    found = figures(values)
    if not values:
        return "not measured in this run"
    return f"median {found['median']:.2f} s, {found['min']:.2f} to {found['max']:.2f} s, {len(values)} times"


def _simulated(run: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    simulated = run.get("simulated")
    if isinstance(simulated, Mapping):
        failures = simulated.get("failures")
        wrong = len(failures) if isinstance(failures, Sequence) else 0
        yield "simulated schedules", f"{simulated.get('schedules')}, of which {wrong} not as they must be"
