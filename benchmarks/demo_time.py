"""`make demo` on a warm checkout, from the command to its exit."""

import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Row

LIMIT_S: Final = 20.0
_ROOT: Final = Path(__file__).resolve().parent.parent


def measure(runs: int) -> list[Row]:
    """Return the wall time of each run."""
    seconds = []
    for _ in range(runs):
        started = time.monotonic()
        subprocess.run(["make", "demo"], cwd=_ROOT, check=True, capture_output=True, timeout=120)
        seconds.append(time.monotonic() - started)
    return [Row("make demo, warm checkout", "s", tuple(seconds), must=LIMIT_S, better="lower")]
