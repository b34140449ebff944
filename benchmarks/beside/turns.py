"""Has workers play scenarios, each in namespaces of its own, and gathers their samples."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

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
        RuntimeError: The worker ended before the end, or the link of the scenario cannot be made here.
    """
    world = own_world()
    if world is None and scenario.link != "loopback":
        raise RuntimeError(NO_NAMESPACES)
    words = [sys.executable, "-m", "benchmarks.beside.worker", scenario.name, "--runs", str(runs), "--size", str(size)]
    # A shell is the first process of its namespace: it reaps what loses its parent.
    command = [*(world or ()), "sh", "-c", '"$@"; exit $?', "worker", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as worker:
        try:
            samples = []
            for line in _lines(worker):
                samples.append(msgspec.json.decode(line, type=Sample))
                tell(samples[-1])
            code = worker.wait(_END_SECONDS)
        finally:
            if worker.stdin is not None:
                worker.stdin.close()  # and so everything of it ends
            if worker.poll() is None:
                worker.kill()
    if code != 0:
        raise RuntimeError(f"The worker of {scenario.name} ended with {code} after {len(samples)} movements")
    return samples


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
