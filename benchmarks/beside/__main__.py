"""Measures Viaduct beside QEMU and iperf3 and writes the table of docs/performance.md.

Usage: python -m benchmarks.beside [--runs 5] [--only SCENARIO ...] [--size BYTES] [--no-grid] [--no-write]

With `--size` everything is played in small, to see that it works: nothing is claimed then. Only a whole run of at least
five turns is written. The exit code is 1 when a row that was measured is not what it must be; of a whole run, also when
one was not measured.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.beside.measures import Run
from benchmarks.beside.page import between_markers, document, missed, tables
from benchmarks.beside.prediction import Prediction
from benchmarks.beside.prediction_grid import GRID
from benchmarks.beside.qemu_process import PROGRAM
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import SCENARIOS, USUAL_RUNS, Scenario, named
from benchmarks.beside.table import MEASURES
from benchmarks.beside.turns import ROOT, play, predict

PAGE: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = ROOT / "benchmarks" / "results"


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted turns of each scenario (default 5)")
    parser.add_argument("--only", nargs="+", type=named, default=[], metavar="SCENARIO", help="these alone, unwritten")
    parser.add_argument("--no-grid", action="store_true", help="leave the predictions out")
    parser.add_argument("--size", type=int, default=0, help="bytes of RAM at most: a trial that writes nothing")
    parser.add_argument("--no-write", action="store_true", help="leave docs and results as they are")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # and take the workers down
    part = arguments.size or arguments.only or arguments.no_grid
    scenarios, grid, write = arguments.only or SCENARIOS, not arguments.no_grid, not arguments.no_write
    return compare(scenarios, arguments.runs, arguments.size, grid=grid, whole=not part, write=write)


def compare(
    scenarios: Sequence[Scenario],
    runs: int,
    size: int = 0,
    *,
    grid: bool = True,
    whole: bool = True,
    write: bool = True,
) -> int:
    """Play scenarios, print the table, and write it where asked; 1 when something is not what it must be.

    Only a `whole` run of at least `USUAL_RUNS` turns is written: fewer have no median worth a claim.
    """
    played: dict[str, list[Sample]] = {}
    predictions: list[Prediction] = []
    broken = 0
    for scenario in scenarios:
        try:
            played[scenario.name] = play(scenario, runs, size, functools.partial(_tell, scenario))
        except RuntimeError as error:
            sys.stderr.write(f"{scenario.name} was NOT MEASURED: {error}\n")
            broken += 1
    for link in dict.fromkeys(one.link for one in GRID) if grid else ():
        try:
            predictions += predict(link, 1 if size else 0, _tell_prediction)
        except RuntimeError as error:
            sys.stderr.write(f"Predictions over {link} were NOT MEASURED: {error}\n")
            broken += 1
    run = Run(played, predictions)
    about = machine(runs)
    sys.stdout.write(f"\n{tables(run, MEASURES, about)}\n")
    if write and whole and runs >= USUAL_RUNS:
        _write(run, about)
    return 1 if broken or missed(run, MEASURES, whole=whole) else 0


def machine(runs: int) -> dict[str, object]:
    """Describe what was measured on, and with what."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    qemu = subprocess.run([PROGRAM, "--version"], capture_output=True, check=False, text=True, timeout=20)
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "CPUs": os.cpu_count(),
        "model": model,
        "memory": f"{psutil.virtual_memory().total >> 30} GiB",
        "kernel": platform.release(),
        "huge pages": _huge_pages("enabled"),
        "for shared memory": _huge_pages("shmem_enabled"),
        "Python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "QEMU": qemu.stdout.split("version ")[-1].split()[0],
        "turns": runs,
    }


def _huge_pages(file: str) -> str:
    """Return the kernel's choice: a destination's fresh memory comes in pages of 2 MiB or of 4 KiB by it."""
    try:
        words = Path("/sys/kernel/mm/transparent_hugepage", file).read_text()
    except OSError:
        return "unknown"
    return words.partition("[")[2].partition("]")[0] or words.strip()


def _tell(scenario: Scenario, sample: Sample) -> None:
    speed = f"{sample.bytes_per_s / 1e9:.2f} GB/s" if sample.bytes_per_s else f"{sample.total_ms:.0f} ms"
    words = speed if sample.outcome == "completed" else f"{sample.outcome}: {sample.why[:200]}"
    sys.stderr.write(f"{scenario.name:16} {sample.turn:3} {sample.who:42} {words}\n")


def _tell_prediction(one: Prediction) -> None:
    words = one.why
    if one.total is not None and one.downtime is not None:
        words = f"total off by {one.total.error:.0%}, downtime by {one.downtime.error:.0%}"
    sys.stderr.write(f"prediction       {one.run:80} {words}\n")


def _write(run: Run, about: dict[str, object]) -> None:
    PAGE.write_text(between_markers(PAGE.read_text(), tables(run, MEASURES, about)))
    path = RESULTS / f"beside-{about['date']}.json"
    path.write_text(json.dumps(document(run, MEASURES, about), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
