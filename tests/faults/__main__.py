"""Injects faults into real processes, judges what came of each, and writes the table of docs/reliability.md.

Usage: python -m tests.faults [--count 204] [--seed N] [--only ROW ...] [--of ORDER ...]
       [--sites 5] [--schedules 2000] [--no-write]

Every row is played on one of several sites side by side. A row that is not as it must be is printed with the command
that replays it, what both journals say, and the tails of the logs. Then the simulated schedules run. The exit code is
1 when anything was not as it must be.
"""

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.judgement import judge
from tests.faults.lanes import ROOT, WITHOUT_CABLES, LaneProcess
from tests.faults.matrix import chosen
from tests.faults.network import own_world
from tests.faults.observation import Observation
from tests.faults.qemu_rows import fetch
from tests.faults.report import between_markers, document, tables
from tests.faults.rows import Ordered, Row, parse

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results"
_SIMULATION_SECONDS = 900.0


def main() -> int:
    """Play, judge, write."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # and take the sites down
    cables = own_world() is not None
    if not cables:
        sys.stderr.write(f"{WITHOUT_CABLES}\n")
        if os.geteuid() == 0:
            sys.stderr.write("As root that is a failure: apt-get install iproute2 util-linux, or allow namespaces\n")
            return 1
    rows = list(arguments.only) or chosen(arguments.count, arguments.seed, cables=cables, ordered=arguments.of)
    whole = not arguments.only and len(arguments.of) == len(Ordered)
    if any(row.qemu for row in rows):
        fetch()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        seen = play_all(rows, min(arguments.sites, len(rows)), Path(folder))
    run: dict[str, object] = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "seed": arguments.seed,
        "lanes": arguments.sites,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "partitions": cables,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    failed = sum(bool(judge(one)) for one in seen)
    if whole and arguments.schedules:
        run["simulated"], simulation_failed = _simulated(arguments.schedules, arguments.seed)
        failed += simulation_failed
    sys.stdout.write(f"\n{tables(seen, run)}\n\n{len(seen)} faults, {failed} not as they must be\n")
    if whole and not arguments.no_write:
        _write(seen, run)
    return 1 if failed else 0


def play_all(rows: Sequence[Row], sites: int, folder: Path) -> list[Observation]:
    """Play rows on so many sites side by side; tell of each as it ends."""
    waiting: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for row in rows:
        waiting.put(row)
    seen: list[Observation] = []
    lock = threading.Lock()

    def work(lane: LaneProcess) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                one = lane.play(waiting.get_nowait())
                with lock:
                    seen.append(one)
                    sys.stdout.write(_line(one, len(seen), len(rows)))
                    sys.stdout.flush()

    lanes = [LaneProcess(folder / str(number)) for number in range(sites)]
    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for lane in lanes:
            lane.close()
    return seen


def _line(one: Observation, number: int, of: int) -> str:
    complaints = judge(one)
    verdict = "FAILED" if complaints else "ok"
    line = f"{number:4}/{of} {verdict:6} {one.row:48} {one.ending or '?':10} {one.took_s:5.1f} s\n"
    if not complaints:
        return line
    lines = [line, *(f"       {words}\n" for words in complaints)]
    lines.append(f"       replay: .venv/bin/python -m tests.faults --only {one.row}\n")
    lines += [f"       journal of {host}: {' > '.join(states) or 'nothing'}\n" for host, states in one.states.items()]
    for name, tail in one.logs.items():
        lines += [f"       --- {name}\n", *(f"       {text}\n" for text in tail.splitlines()[-12:])]
    return "".join(lines)


def _simulated(count: int, seed: int) -> tuple[object, int]:
    """Run the simulated schedules; return what they came to, and how many were not as they must be."""
    if importlib.util.find_spec("tests.simulation.__main__") is None:
        return None, 0
    command = [sys.executable, "-m", "tests.simulation", "--count", str(count), "--seed", str(seed), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=_SIMULATION_SECONDS, text=True)
    sys.stderr.write(done.stderr[-4000:])
    try:
        found: object = json.loads(done.stdout)
    except ValueError:
        sys.stderr.write(done.stdout[-4000:])
        return None, 1
    return found, int(done.returncode != 0)


def _write(seen: Sequence[Observation], run: dict[str, object]) -> None:
    PAGE.write_text(between_markers(PAGE.read_text(), tables(seen, run)))
    path = RESULTS / f"faults-{run['date']}.json"
    path.write_text(json.dumps(document(seen, run), indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=204, help="faults into real processes (default 204)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1_000_000), help="which of them; drawn if not given"
    )
    parser.add_argument("--only", type=parse, nargs="+", default=[], metavar="ROW", help="these rows alone")
    parser.add_argument(
        "--of",
        type=Ordered,
        nargs="+",
        default=list(Ordered),
        help="only rows about these (default: all; updates are transfer, exec and reboot)",
    )
    parser.add_argument("--sites", type=int, default=5, help="sites side by side (default 5)")
    parser.add_argument("--schedules", type=int, default=2000, help="simulated schedules (default 2000; 0: none)")
    parser.add_argument("--no-write", action="store_true", help="leave docs and results as they are")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
