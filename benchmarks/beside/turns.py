"""Has workers play scenarios, each in namespaces of its own, and gathers their samples."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.beside.content import MEMORY_FILES
from benchmarks.beside.link import LinkName
from benchmarks.beside.prediction import Prediction
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import Scenario
from tests.faults.network import own_world

ROOT: Final = Path(__file__).resolve().parents[2]
NO_NAMESPACES: Final = "This machine allows no network namespaces (unshare --net, ip link add)"
_ANSWER_SECONDS: Final = 900.0
"""Filling 8 GiB for the first time, and a migration that comes to no end, take minutes."""
_END_SECONDS: Final = 60.0


def play(scenario: Scenario, runs: int, size: int, tell: Callable[[Sample], None]) -> list[Sample]:
    """Return the samples of a scenario; `tell` hears each as it comes.

    Raises:
        RuntimeError: As `_answers`.
    """
    words = ["benchmarks.beside.worker", scenario.name, "--runs", str(runs), "--size", str(size)]
    samples = []
    for line in _answers(words, shaped=scenario.link != "loopback"):
        samples.append(msgspec.json.decode(line, type=Sample))
        tell(samples[-1])
    return samples


def predict(link: LinkName, only: int, tell: Callable[[Prediction], None]) -> list[Prediction]:
    """Return what became of the grid's predictions on one link, of the first so many or (0) of all.

    Raises:
        RuntimeError: As `_answers`.
    """
    words = ["benchmarks.beside.prediction_worker", link, "--only", str(only)]
    predictions = []
    for line in _answers(words, shaped=link != "loopback"):
        predictions.append(msgspec.json.decode(line, type=Prediction))
        tell(predictions[-1])
    return predictions


def _answers(words: Sequence[str], *, shaped: bool) -> Iterator[bytes]:
    """Run a worker's module in a world of its own and yield its lines.

    Raises:
        RuntimeError: It ended before its end, or a link cannot be shaped on this machine.
    """
    world = own_world()
    if world is None and shaped:
        raise RuntimeError(NO_NAMESPACES)
    # A shell is the first process of its namespace: it reaps what loses its parent. Files in memory lie on a mount of
    # this namespace's own, so that gigabytes of them go with it, also when the worker is killed.
    script = f"mount -t tmpfs -o size=90% tmpfs {MEMORY_FILES} && " if world else ""
    command = [*(world or ()), "sh", "-c", f'{script}"$@"; exit $?', "worker", sys.executable, "-m", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as worker:
        try:
            yield from _lines(worker)
            code = worker.wait(_END_SECONDS)
        finally:
            if worker.stdin is not None:
                worker.stdin.close()  # and so everything of it ends
            if worker.poll() is None:
                worker.kill()
    if code != 0:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {code}")


def _lines(worker: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    assert worker.stdout is not None
    descriptor, rest = worker.stdout.fileno(), b""
    while select.select([descriptor], [], [], _ANSWER_SECONDS)[0]:
        part = os.read(descriptor, 1 << 16)
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    raise RuntimeError(f"The worker said nothing for {_ANSWER_SECONDS:.0f} s")
