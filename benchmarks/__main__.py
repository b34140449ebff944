"""Runs the measured comparisons, prints them as a table and writes them as JSON.

Usage: python -m benchmarks [--runs 5] [--only NAME ...]

`beside` is the comparison with QEMU and iperf3, which has a table of its own, also in docs/performance.md. What
docs/reliability.md shows of the rest is written there: bad peers, damaged frames, failover, renewed certificates, what
TLS costs. `scale`, `update`, `containers` and `qemu` have tables in docs/scale.md, update.md, evacuation.md, qemu.md.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import (
    bad_peers,
    containers,
    convergence,
    damaged_frames,
    demo_time,
    dirty_rate,
    failover,
    matrix_time,
    qemu_machines,
    recovery_time,
    reliability_page,
    renewal,
    security,
    terabyte,
    throughput,
    update,
    vtd,
)
from benchmarks.beside.__main__ import compare
from benchmarks.beside.page import between_markers
from benchmarks.beside.scenarios import SCENARIOS
from benchmarks.figures import Row
from benchmarks.scale import scenario as scale

RESULTS: Final = Path(__file__).resolve().parent / "results"
PAGE: Final = RESULTS.parents[1] / "docs" / "reliability.md"
SCALE_PAGE: Final = PAGE.with_name("scale.md")
QEMU_PAGE: Final = PAGE.with_name("qemu.md")
UPDATE_PAGE: Final = PAGE.with_name("update.md")
EVACUATION_PAGE: Final = PAGE.with_name("evacuation.md")
NAMES: Final = (
    "beside",
    "throughput",
    "convergence",
    "dirty-rate",
    "demo-time",
    "vtd",
    "terabyte",
    "matrix",
    "recovery",
    "failover",
    "containers",
    "scale",
    "bad-peers",
    "damaged-frames",
    "renewal",
    "security",
    "update",
    "qemu",
)
_CONVERGENCE_RUNS: Final = 20
_MATRIX_RUNS: Final = 3


def main() -> int:
    """Measure, show, write; 1 when a measure that must be reached was not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each comparison (default 5)")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    arguments = parser.parse_args()
    failed = "beside" in arguments.only and compare(SCENARIOS, arguments.runs) != 0
    rows = _in_a_folder(arguments.only, arguments.runs)
    if "vtd" in arguments.only:
        rows += vtd.measure(arguments.runs)
    if "terabyte" in arguments.only:
        rows += terabyte.measure(arguments.runs)
    if "matrix" in arguments.only:
        rows += matrix_time.measure(min(arguments.runs, _MATRIX_RUNS))
    rows += _of_faults(arguments.only, arguments.runs)
    if "convergence" in arguments.only:
        rows += asyncio.run(convergence.measure(max(arguments.runs, _CONVERGENCE_RUNS)))
    if "demo-time" in arguments.only:
        rows += demo_time.measure(arguments.runs)
    if "renewal" in arguments.only:
        rows += asyncio.run(renewal.measure(arguments.runs))
    if "security" in arguments.only:
        rows += security.measure(arguments.runs)
    if "qemu" in arguments.only:
        rows += qemu_machines.measure(arguments.runs)
    if rows:
        show(rows)
        write(rows)
    _write_pages(arguments.only)
    return 1 if failed or any(row.reached is False for row in rows) else 0


def _of_faults(only: list[str], runs: int) -> list[Row]:
    """Measure how soon everything is as before, or goes on."""
    rows: list[Row] = []
    if "recovery" in only:
        rows += asyncio.run(recovery_time.measure(runs))
    if "failover" in only:
        rows += asyncio.run(failover.measure(runs))
    if "containers" in only:
        rows += containers.measure(runs)
    if "scale" in only:
        rows += asyncio.run(scale.measure(runs))
    if "update" in only:
        rows += asyncio.run(update.measure(runs))
    return rows


def _in_a_folder(only: list[str], runs: int) -> list[Row]:
    """Measure what needs room for an image of memory."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="viaduct-bench-") as folder:
        if "dirty-rate" in only:
            rows += asyncio.run(dirty_rate.measure(Path(folder), runs))
        if "throughput" in only:
            rows += asyncio.run(throughput.measure(Path(folder), runs))
        if "bad-peers" in only:
            rows += asyncio.run(bad_peers.measure(Path(folder), runs))
        if "damaged-frames" in only:
            rows += asyncio.run(damaged_frames.measure(Path(folder)))
    return rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title=f"Viaduct on {machine()['cpus']} CPUs, {machine()['kernel']}")
    for column in ("measure", "median", "min", "max", "runs", "must reach", ""):
        table.add_column(column, justify="left" if column in ("measure", "") else "right")
    for row in rows:
        figures = row.document()
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        must = "" if row.must is None else f"{row.must:g}"
        table.add_row(
            f"{row.name} ({row.unit})", *(f"{figures[key]:.3g}" for key in ("median", "min", "max")),
            str(figures["runs"]), must, verdict,
        )  # fmt: skip
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)


def write(rows: list[Row]) -> None:
    """Write the results beside the earlier ones; what was measured earlier today and not now stays as it was."""
    now = datetime.datetime.now(tz=datetime.UTC)
    document = {
        "schema": "viaduct.bench.v1",
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "rows": [row.document() for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d}.json"
    measured = {row.name for row in rows}
    if path.exists():
        document["rows"] = [row for row in json.loads(path.read_text())["rows"] if row["name"] not in measured] + [
            row.document() for row in rows
        ]
    path.write_text(json.dumps(document, indent=1) + "\n")
    shown = reliability_page.table(reliability_page.read(RESULTS))
    PAGE.write_text(between_markers(PAGE.read_text(), shown, reliability_page.BEGIN, reliability_page.END))


def _write_pages(only: list[str]) -> None:
    """Write the tables of the pages that have one of their own."""
    if "scale" in only:
        _write_page(SCALE_PAGE, scale.PAGE_ROWS)
    if "containers" in only:
        _write_page(EVACUATION_PAGE, containers.PAGE_ROWS)
    if "update" in only:
        _write_page(UPDATE_PAGE, update.PAGE_ROWS, update.PUBLISHED)
    if "qemu" in only:
        _write_page(QEMU_PAGE, qemu_machines.PAGE_ROWS)


def _write_page(page: Path, rows: Mapping[str, Sequence[str]], *more: str) -> None:
    """Write what was measured last, and further lines of the table, between the markers of a page."""
    shown = "\n".join((reliability_page.table(reliability_page.read(RESULTS), rows), *more))
    page.write_text(between_markers(page.read_text(), shown, reliability_page.BEGIN, reliability_page.END))


def machine() -> dict[str, object]:
    """Describe what was measured on."""
    return {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(main())
