"""Searches for bytes that a parser cannot bear, guided by what of the code they reach.

Usage: python -m tests.fuzz [--seconds 60] [--keep] [--write-seeds] [TARGET ...]

Every target is searched in a process of its own, from tests/corpus/TARGET. What breaks one is left there as crash-*,
timeout-* or oom-*: the suite then fails until it is mended. `--keep` adds the inputs that reached code which none in
the corpus does. The exit code is 1 when anything was found.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import NAMES, load

_ROOT = Path(__file__).parent.parent.parent
_SLOWEST = 10
"""Seconds for one input; more is a hang."""
_MEMORY_MIB = 2048
_LONGEST = 1 << 16


def main() -> int:
    """Search one target after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what reached more code to the corpus")
    parser.add_argument("--write-seeds", action="store_true", help="write each target's seeds into its corpus, and end")
    parser.add_argument(
        "target", nargs="*", metavar="TARGET", help=f"one of {', '.join(NAMES)}; all where none is given"
    )
    arguments = parser.parse_args()
    chosen: list[str] = arguments.target or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        parser.error(f"No such target: {', '.join(unknown)}")
    if arguments.write_seeds:
        for name in chosen:
            _write_seeds(name)
        return 0
    broken = [name for name in chosen if not _search(name, arguments.seconds, keep=arguments.keep)]
    sys.stdout.write(f"{len(chosen)} targets, {len(broken)} broken{': ' if broken else ''}{', '.join(broken)}\n")
    return 1 if broken else 0


def _write_seeds(name: str) -> None:
    target = load(name)
    target.folder.mkdir(parents=True, exist_ok=True)
    for seed, data in target.seeds.items():
        (target.folder / seed).write_bytes(data)


def _search(name: str, seconds: int, *, keep: bool) -> bool:
    corpus = _ROOT / "tests" / "corpus" / name
    with tempfile.TemporaryDirectory(prefix="viaduct-fuzz-") as scratch:
        limits = (f"-timeout={_SLOWEST}", f"-rss_limit_mb={_MEMORY_MIB}", f"-max_len={_LONGEST}")
        search = ("-print_final_stats=1", "-verbosity=0", f"-max_total_time={seconds}", f"-artifact_prefix={corpus}/")
        ended = _run(name, *limits, *search, scratch, str(corpus))
        tests = next((line.split()[-1] for line in ended.stderr.splitlines() if "number_of_executed" in line), "?")
        verdict = "nothing found" if ended.returncode == 0 else "BROKEN"
        sys.stdout.write(f"{name:22} {tests:>10} inputs in {seconds} s: {verdict}\n")
        sys.stdout.flush()
        if ended.returncode != 0:
            sys.stderr.write(f"{ended.stdout[-4000:]}{ended.stderr[-4000:]}\n")
        elif keep:
            for found in Path(scratch).iterdir():
                shutil.copy(found, corpus / found.name)
    return ended.returncode == 0


def _run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tests.fuzz.search", name, *options)
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace", check=False)


if __name__ == "__main__":
    sys.exit(main())
