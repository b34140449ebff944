"""`viaduct lab matrix`: everything that the documents say, in under a minute."""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Row


def measure(runs: int) -> list[Row]:
    """Return how long whole runs take; each must find everything as expected."""
    command = [str(Path(sys.executable).with_name("viaduct")), "lab", "matrix", "--json"]
    times = []
    for _ in range(runs):
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - started)
    return [Row("viaduct lab matrix", "s", tuple(times), must=60.0, better="lower", worst=True)]
