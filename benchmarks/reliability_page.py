"""The rows of docs/reliability.md that are measured, from the newest results that have them: a pure function of both.

Each row says on which day it was measured and on how many processors; one that was never measured says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import bad_peers, damaged_frames, failover, renewal, security

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"
NAMES: Final[Mapping[str, Sequence[str]]] = {
    "bad-peers": bad_peers.RATIOS,
    "damaged-frames": (damaged_frames.TRIED, damaged_frames.ACCEPTED, damaged_frames.CRASHES, damaged_frames.GROWN),
    "failover": (failover.KILLED, failover.FROZEN, failover.LOST, failover.DOUBLED),
    "renewal": (renewal.MIGRATIONS, renewal.FAILED),
    "security": (security.OURS_OVER_ITSELF, security.QEMU_OVER_ITSELF, security.OURS_OVER_QEMU),
}
"""By the name that `--only` knows, the rows in their order."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cpus: int
    kernel: str


class MeasuredRow(msgspec.Struct, frozen=True):
    """One row, as benchmarks.figures.Row writes it."""

    name: str
    unit: str
    median: float
    min: float
    max: float
    runs: int
    must: float | None
    reached: bool | None


class Results(msgspec.Struct, frozen=True):
    """What a day's measurements left in benchmarks/results."""

    date: str
    machine: Machine
    rows: tuple[MeasuredRow, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    row: MeasuredRow
    results: Results


def read(folder: Path) -> list[Results]:
    """Return the results that lie in a folder, the oldest first."""
    files = sorted(folder.glob("[0-9]*.json"))
    return [msgspec.json.decode(path.read_bytes(), type=Results) for path in files]


def table(results: Iterable[Results], names: Mapping[str, Sequence[str]] = NAMES) -> str:
    """Return every row of a page, with what was measured last; `names` are as NAMES."""
    newest = {row.name: _Measured(row, each) for each in results for row in each.rows}
    lines = ["| measure | must | median | spread | measured |", "|---|---|---|---|---|"]
    for measurement, rows in names.items():
        lines += [_line(name, newest.get(name), measurement) for name in rows]
    return "\n".join(lines)


def _line(name: str, measured: _Measured | None, measurement: str) -> str:
    if measured is None:
        return f'| {name} | | | | not measured yet: `make bench ARGS="--only {measurement}"` |'
    row, about = measured.row, measured.results
    unit = "" if row.unit == "ratio" else f" {row.unit}"
    must = "" if row.must is None else f"{row.must:g}{unit}{'' if row.reached else ': MISSED'}"
    spread = f"{row.min:.3g} to {row.max:.3g}, n={row.runs}" if row.runs > 1 else ""
    value = f"{row.median:.0f}" if row.median == int(row.median) else f"{row.median:.3g}"
    where = f"{about.date[:10]}, {about.machine.cpus} CPUs, {about.machine.kernel}"
    return f"| {name} | {must} | {value}{unit} | {spread} | {where} |"
