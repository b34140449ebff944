"""What a run came to, as Markdown for docs/performance.md and as JSON: pure functions."""

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from benchmarks.beside.measures import (
    NONE,
    Figure,
    Measure,
    Reading,
    Run,
    bytes_per_s,
    completed,
    counted,
    cpu_per_gib,
    downtime,
    total,
)
from benchmarks.beside.prediction import Expectation
from benchmarks.beside.sample import Sample

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"


def tables(run: Run, measures: Sequence[Measure], about: Mapping[str, object]) -> str:
    """Return a run as Markdown: the rows that must be reached, and everybody's own figures."""
    lines = [f"{described(about)}:", "", *_judged(run, measures), "", *_figures(run)]
    return "\n".join([*lines, "", *_predictions(run)] if run.predictions else lines)


def document(run: Run, measures: Sequence[Measure], about: Mapping[str, object]) -> dict[str, object]:
    """Return a run as JSON, every sample in it."""
    rows = []
    for measure in measures:
        reading = measure.read(run)
        rows.append(
            {
                "scenario": measure.scenario,
                "beside": measure.beside,
                "must": None if measure.must == NONE else measure.must,
                "aim": measure.aim,
                "unit": measure.unit,
                "judged": measure.judged(reading),
                "values": [round(value, 4) for value in reading.values],
                "reached": measure.reached(reading),
                "verdict": measure.verdict(reading),
                "words": reading.words,
            }
        )
    samples = {name: [_plain(each) for each in found] for name, found in run.scenarios.items()}
    told: list[object] = [msgspec.to_builtins(each) for each in run.predictions]
    return {"schema": "viaduct.bench-beside.v1", **about, "rows": rows, "samples": samples, "predictions": told}


def missed(run: Run, measures: Sequence[Measure], *, whole: bool = False) -> list[str]:
    """Return the rows that are not what they must be; of a whole run those too that were not measured."""
    found = []
    for each in measures:
        reading = each.read(run)
        reached = each.reached(reading)
        unmeasured = whole and each.must != NONE and reached is None
        if unmeasured or reached is False:
            found.append(each.scenario)
    return found


def described(about: Mapping[str, object]) -> str:
    """Return the machine and the moment in one line."""
    return ", ".join(f"{key} {value}" for key, value in about.items())


def between_markers(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a page with what stands between the markers replaced.

    Raises:
        ValueError: It has no markers.
    """
    head, found, rest = text.partition(begin)
    _, ends, tail = rest.partition(end)
    if not found or not ends:
        raise ValueError(f"The page has no {begin} ... {end}")
    return f"{head}{begin}\n{table}\n{end}{tail}"


def _judged(run: Run, measures: Sequence[Measure]) -> list[str]:
    lines = ["| scenario | beside | must reach | aim | reached | spread | |", "|---|---|---|---|---|---|---|"]
    for measure in measures:
        reading = measure.read(run)
        sign = "≤" if measure.better == "lower" else "≥"
        must = "-" if measure.must == NONE else f"{sign} {_value(measure.must, measure)}"
        value = measure.judged(reading)
        got = "-" if value is None else _value(value, measure)
        verdict = measure.verdict(reading)
        words = f"{verdict}: {reading.words}" if reading.words and reading.words != verdict else verdict
        cells = (
            measure.scenario,
            measure.beside,
            must,
            f"{sign} {_value(measure.aim, measure)}",
            got,
            _spread(reading),
        )
        lines.append(f"| {' | '.join(cells)} | {words} |")
    return lines


def _figures(run: Run) -> list[str]:
    lines = [
        "| scenario | who | runs | ready ms | total ms | with ready ms | downtime ms | own word ms | GB/s | MB sent "
        "| CPU s per GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, samples in run.scenarios.items():
        everybody = dict.fromkeys(each.who for each in samples)
        lines += [f"| {name} | {who} | {_row_of(samples, who)} |" for who in everybody]
    return lines


def _predictions(run: Run) -> list[str]:
    lines = [
        "| run of the grid | expected total ms | total ms | off | of it Prepare ms "
        "| expected downtime ms | downtime ms | off | rounds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in run.predictions:
        if one.total is None or one.downtime is None:
            lines.append(f"| {one.run} | {one.why} | | | | | | | |")
            continue
        prepare = f"{one.prepare_ms:.0f} ({one.expected_prepare_ms:.0f} expected)"
        rounds = f"{one.rounds} ({one.expected_rounds} expected)"
        lines.append(f"| {one.run} | {_beside(one.total)} | {prepare} | {_beside(one.downtime)} | {rounds} |")
    return lines


def _beside(told: Expectation) -> str:
    return f"{told.expected:.0f} ({told.low:.0f}-{told.high:.0f}) | {told.outcome:.0f} | {told.error:.0%}"


def _row_of(samples: Sequence[Sample], who: str) -> str:
    tried, good = counted(samples, who), list(completed(samples, who).values())
    runs = str(len(good)) if len(good) == len(tried) else f"{len(good)} of {len(tried)}"
    if not good:
        said = tried[-1].outcome if tried else "not measured"
        return " | ".join([runs, said, *[""] * 7])
    columns: tuple[Figure, ...] = (
        lambda one: one.ready_ms,
        total,
        lambda one: one.ready_ms + one.total_ms,
        downtime,
        lambda one: one.own_downtime_ms,
        lambda one: bytes_per_s(one) / 1e9,
        lambda one: one.wire_bytes / 1e6,
        cpu_per_gib,
    )
    return " | ".join([runs, *(_median(good, column) for column in columns)])


def _median(samples: Sequence[Sample], figure: Figure) -> str:
    values = [figure(each) for each in samples]
    return f"{median(values):.4g} ({min(values):.4g}-{max(values):.4g})" if any(values) else "-"


def _spread(reading: Reading) -> str:
    if not reading.values:
        return ""
    return f"{min(reading.values):.3g}-{max(reading.values):.3g}, n={len(reading.values)}"


def _value(value: float, measure: Measure) -> str:
    return f"{value:.3g} {measure.unit}"


def _plain(sample: Sample) -> dict[str, object]:
    told = {name: getattr(sample, name) for name in sample.__struct_fields__}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in told.items()}
