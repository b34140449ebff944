"""Measures Viaduct beside QEMU and iperf3 and writes the table of docs/performance.md.

Usage: python -m benchmarks.beside [--runs 5] [--only SCENARIO ...] [--size BYTES] [--no-write]

With `--size` everything is played in small, to see that it works: nothing is written then, and nothing is claimed.
The exit code is 1 when a row that was measured is not what it must be.
"""

import argparse
import datetime
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

from benchmarks.beside.page import between_markers, document, missed, tables
from benchmarks.beside.qemu_process import PROGRAM
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import SCENARIOS, Scenario, named
from benchmarks.beside.table import MEASURES
from benchmarks.beside.turns import ROOT, play

PAGE: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = ROOT / "benchmarks" / "results"


def main() -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted turns of each scenario (default 5)")
    parser.add_argument("--only", nargs="+", type=named, default=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--size", type=int, default=0, help="bytes of RAM at most: a trial that writes nothing")
    parser.add_argument("--no-write", action="store_true", help="leave docs and results as they are")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # and take the workers down
    write = not (arguments.no_write or arguments.size)
    return compare(arguments.only, arguments.runs, arguments.size, write=write)


def compare(scenarios: Sequence[Scenario], runs: int, size: int = 0, *, write: bool = True) -> int:
    """Play scenarios, print the table, and write it where asked; 1 when something is not what it must be."""
    run: dict[str, list[Sample]] = {}
    broken = 0
    for scenario in scenarios:
        try:
            run[scenario.name] = play(scenario, runs, size, lambda sample: _tell(scenario, sample))  # noqa: B023
        except RuntimeError as error:
            sys.stderr.write(f"{scenario.name} was NOT MEASURED: {error}\n")
            broken += 1
    about = machine(runs)
    sys.stdout.write(f"\n{tables(run, MEASURES, about)}\n")
    if write:
        _write(run, about)
    return 1 if broken or missed(run, MEASURES) else 0


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
        "Python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "QEMU": qemu.stdout.split("version ")[-1].split()[0],
        "turns": runs,
    }


def _tell(scenario: Scenario, sample: Sample) -> None:
    speed = f"{sample.bytes_per_s / 1e9:.2f} GB/s" if sample.bytes_per_s else f"{sample.total_ms:.0f} ms"
    words = speed if sample.outcome == "completed" else f"{sample.outcome}: {sample.why[:200]}"
    sys.stderr.write(f"{scenario.name:16} {sample.turn:3} {sample.who:42} {words}\n")


def _write(run: dict[str, list[Sample]], about: dict[str, object]) -> None:
    PAGE.write_text(between_markers(PAGE.read_text(), tables(run, MEASURES, about)))
    path = RESULTS / f"beside-{about['date']}.json"
    path.write_text(json.dumps(document(run, MEASURES, about), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
