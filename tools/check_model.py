"""Check the model of the handover, docs/protocol/handover.pml, and that it falls when a rule of it is taken away.

usage: python -m tools.check_model [--long] [NAME ...]
       python -m tools.check_model --trail NAME ...

Every run searches all states within its bounds; one without a rule stops at the first error, and must find one. NAME
chooses runs by what the table calls them. --long adds the large runs and those that show what a second line of defence
is worth. --trail replays the shortest way to a run's error in words. Needs spin and gcc; see docs/protocol/model.md.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from tools.model_runs import CYCLES, LONG, MUTATIONS, PROPERTIES, REACHED, WHOLE, Run

ROOT: Final = Path(__file__).resolve().parent.parent
MODEL: Final = ROOT / "docs" / "protocol" / "handover.pml"
PAGE: Final = ROOT / "docs" / "protocol" / "model.md"
DEPTH: Final = 1_000
"""Steps in a row that a search may take. Every run within the bounds is far shorter, so reaching it is an error."""
MEMORY_MIB: Final = 1_900
"""For each of the two searches that run side by side."""
SIDE_BY_SIDE: Final = 2


@dataclass(frozen=True, slots=True)
class Result:
    """What the checker said of one run."""

    states: int
    depth: int
    mebibytes: float
    seconds: float
    broken: str
    """The property that an error breaks, empty where none was found."""
    incomplete: str
    """Why the search did not cover everything, empty where it did or stopped at an error."""


class CheckerError(Exception):
    """The checker did not run, or said something that is not understood."""


def rule_bits(model: str) -> dict[str, int]:
    """Read which bit takes a rule away, from the model's own list."""
    found = re.findall(r"^#define NO_(\w+) NO\((\d+)\)$", model, re.MULTILINE)
    return {name.lower().replace("_", "-"): 1 << int(bit) for name, bit in found}


def environment(run: Run, bits: Mapping[str, int]) -> dict[str, str]:
    """Return what the checker reads for a run."""
    without = sum(bits[rule] for rule in run.without)
    settings = {**run.bounds, "WITHOUT": without, "WATCH": run.watch, "WITNESS": run.witness}
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def read_result(output: str) -> Result:
    """Read what the checker printed.

    Raises:
        CheckerError: It did not come to its summary.
    """
    summary = {
        "states": re.search(r"(\d+) states, stored", output),
        "depth": re.search(r"depth reached (\d+)", output),
        "memory": re.search(r"([\d.]+)\s+total actual memory usage", output),
        "seconds": re.search(r"elapsed time ([\d.]+)", output),
        "errors": re.search(r"errors: (\d+)", output),
    }
    numbers = {name: float(match[1]) for name, match in summary.items() if match is not None}
    if len(numbers) < len(summary):
        raise CheckerError(output.strip()[-500:] or "The checker said nothing")
    broken = re.search(r"assertion violated \( !(\w+) \)", output)
    name = broken[1] if broken is not None else "goes_on_for_ever" if "non-progress cycle (at" in output else ""
    if numbers["errors"] and not name:
        raise CheckerError(output.strip()[:500])
    incomplete = ""
    if "max search depth too small" in output:
        incomplete = "search depth too small"
    elif not numbers["errors"] and "Search not completed" in output:
        incomplete = "out of memory"
    return Result(
        states=int(numbers["states"]),
        depth=int(numbers["depth"]),
        mebibytes=numbers["memory"],
        seconds=numbers["seconds"],
        broken=name,
        incomplete=incomplete,
    )


def stated(page: str) -> dict[str, str]:
    """Read by which property each run without a rule falls, from the page's tables, in that property's words."""
    words = dict(re.findall(r"^(\d+)\. \*\*(.+?)\*\*", page, re.MULTILINE))
    taken_away = page.partition("## Rules that are taken away")[2]
    rows = re.findall(r"^\| (`[^|]*`) \|[^|]*\|[^|]*\| (\d+) \|", taken_away, re.MULTILINE)
    return {name: words[number] for names, number in rows for name in re.findall(r"`([^`]+)`", names)}


def verdict(run: Run, result: Result, must: str = "") -> tuple[bool, str]:
    """Say whether a run came out as it must, and what it showed; `must` names the property by which it is to fall."""
    if result.incomplete:
        return False, f"NOT FINISHED: {result.incomplete}"
    words = next((each.words for each in PROPERTIES if each.name == result.broken), result.broken)
    if run.witness:
        return bool(words), words or "NOT REACHED"
    if run.falls and words and must and words != must:
        return False, f"falls: {words}, WHERE THE PAGE SAYS: {must}"
    if run.falls:
        return bool(words), f"falls: {words}" if words else "SURVIVES"
    return not words, f"FALLS: {words}" if words else "holds"


def fail(what: str, remedy: str) -> NoReturn:
    """End with one line that says what is wrong and one that says what to do."""
    print(f"{what}\n{remedy}", file=sys.stderr)
    sys.exit(1)


def build(folder: Path, options: Sequence[str]) -> Path:
    """Compile the model into a checker in a folder of its own; returns the checker.

    Raises:
        CheckerError: spin or gcc refused it.
    """
    folder.mkdir()
    shutil.copy(MODEL, folder)
    spins = [option for option in options if option.startswith("-DTHIRD")]
    # No reduction by partial order: every step looks at another host, so there is nothing to reduce.
    flags = ["-O1", "-w", "-DNOREDUCE", "-DNOFAIR", f"-DMEMLIM={MEMORY_MIB}", *options]
    for command in (["spin", "-a", *spins, MODEL.name], ["gcc", *flags, "-o", "pan", "pan.c"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CheckerError(f"{command[0]}: {(done.stdout + done.stderr).strip()[-500:]}")
    return folder / "pan"


def search(checker: Path, run: Run, bits: Mapping[str, int]) -> Result:
    """Run the checker to its end.

    Raises:
        CheckerError: It failed by its own fault.
    """
    command = [str(checker), f"-m{DEPTH}", "-w22", *(["-l"] if run.build == CYCLES else [])]
    with tempfile.TemporaryDirectory(dir=checker.parent) as folder:  # where it writes the trail of an error
        done = subprocess.run(
            command, cwd=folder, env=environment(run, bits), capture_output=True, text=True, check=False
        )
    return read_result(done.stdout + done.stderr)


def row(run: Run, result: Result, what: str) -> str:
    """Return a run as a line of the table, which ends with what it showed."""
    return (
        f"{run.name:62} {result.states:>10,} {result.depth:>5} {result.mebibytes:>5.0f} {result.seconds:>6.1f}  {what}"
    )


def check(runs: Sequence[Run], folder: Path) -> bool:
    """Make all runs, two side by side, and print the table; tells whether each came out as it must.

    Raises:
        CheckerError: The checker failed by its own fault.
    """
    bits, good, falls_by = rule_bits(MODEL.read_text()), True, stated(PAGE.read_text())
    print(f"{'run':62} {'states':>10} {'depth':>5} {'MiB':>5} {'s':>6}  what it showed")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        kinds = list(dict.fromkeys(run.build for run in runs))
        checkers = {kind: pool.submit(build, folder / str(number), kind) for number, kind in enumerate(kinds)}

        def made(run: Run) -> Result:
            return search(checkers[run.build].result(), run, bits)

        for run, result in zip(runs, pool.map(made, runs), strict=True):
            came_out, what = verdict(run, result, falls_by.get(run.name, ""))
            good = came_out and good
            print(row(run, result, what), flush=True)
    return good


def words_of(line: str, model: str) -> str:
    """Return a line of a trail with the names of states and commands in place of their numbers."""
    names = re.findall(r"^#define (\w+) (\d+)$", model, re.MULTILINE)
    at = [name for name, _ in names].index("NO_COMMAND")
    states, commands = ({number: name for name, number in part} for part in (names[:at], names[at:]))
    line = re.sub(r"state (\d+)", lambda match: states[match[1]], line)
    return re.sub(r"command (\d+)", lambda match: commands[match[1]], line)


def trail(run: Run, folder: Path) -> list[str]:
    """Return the shortest way to a run's error, a step a line; empty where it has none.

    Raises:
        CheckerError: The checker failed by its own fault.
    """
    model = MODEL.read_text()
    bits = rule_bits(model)
    way = run.build if run.build == CYCLES else (*run.build, "-DBFS")
    checker, settings = build(folder / run.name.replace(" ", "-"), way), environment(run, bits)
    command = [str(checker), f"-m{DEPTH}", "-w22", *(["-l"] if run.build == CYCLES else [])]
    place = checker.parent
    first = subprocess.run(command, cwd=place, env=settings, capture_output=True, text=True, check=False)
    found = read_result(first.stdout + first.stderr)
    if not found.broken:
        return []
    replay = [str(checker), "-r", "-n", f"{MODEL.name}.trail"]
    told = subprocess.run(replay, cwd=place, env=settings, capture_output=True, text=True, check=False).stdout
    steps = [words_of(line.strip()[2:], model) for line in told.splitlines() if line.strip().startswith("| ")]
    return [*steps, f"broken: {verdict(run, found)[1]}"]


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check the model of the handover.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs of the table; all without")
    parser.add_argument("--long", action="store_true", help="the large runs too")
    parser.add_argument("--trail", action="store_true", help="tell the shortest way to each NAME's error")
    asked = parser.parse_args(arguments)
    missing = [program for program in ("spin", "gcc") if shutil.which(program) is None]
    if missing:
        fail(f"The model's checker needs {' and '.join(missing)}", "python3 tools/set_up.py dev model")
    known = {run.name: run for run in (*WHOLE, *REACHED, *MUTATIONS, *LONG)}
    unknown = [name for name in asked.names if name not in known]
    if unknown or (asked.trail and not asked.names):
        fail(f"Unknown runs: {', '.join(unknown) or 'none is named'}", f"There are: {'; '.join(known)}")
    runs = [known[name] for name in asked.names] or [*(LONG if asked.long else ()), *WHOLE, *REACHED, *MUTATIONS]
    try:
        with tempfile.TemporaryDirectory(prefix="viaduct-model-") as folder:
            if not asked.trail:
                return 0 if check(runs, Path(folder)) else 1
            for run in runs:
                print("\n".join([f"{run.name}:", *(trail(run, Path(folder)) or ["no error"])]))
            return 0
    except CheckerError as error:
        fail(f"The checker failed: {error}", "Run it again; if it fails again, look at docs/protocol/handover.pml")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
