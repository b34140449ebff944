"""Run targets of the Makefile in lanes side by side, and those of a lane one after the other.

usage: python3 tools/side_by_side.py MAKE LANE LANE ... [-- LANE LANE ...] ...

    python3 tools/side_by_side.py make "test" "lint types" -- "deploy-test" "lab"

What the first lane says is heard at once. What a target of another says is kept until that ends, so that it is in one
piece. A target that fails ends its lane, and the others go on: all that is wrong is found in one run. What comes after
`--` begins when all before it have ended, however they did. Who interrupts this, or tells it to stop, ends what runs.
Only the standard library is used: this is what CI begins with.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

INTERRUPTED: Final = 130
"""As a shell says of what SIGINT ended."""
AFTERWARDS: Final = "--"


class Lanes:
    """What runs of some lanes, and whether more may."""

    def __init__(self, make: str) -> None:
        self._make: Final = make
        self._turn: Final = threading.Lock()
        self._running: Final[set[subprocess.Popen[bytes]]] = set()
        self._stopped = False

    def run(self, targets: Sequence[str], *, aloud: bool) -> str | None:
        """Make targets in order; return the first that fails, or None."""
        for target in targets:
            began = time.monotonic()
            with tempfile.TemporaryFile() if not aloud else contextlib.nullcontext() as kept:
                status = self._made(target, kept)
                self._tell(f"{target}: {'failed' if status else 'passed'}, {time.monotonic() - began:.0f} s", kept)
            if status:
                return target
        return None

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        with self._turn:
            self._stopped = True
            for process in self._running:
                process.terminate()  # make ends what it has begun, and waits for that

    def _made(self, target: str, kept: IO[bytes] | None) -> int:
        with self._turn:
            if self._stopped:
                return INTERRUPTED
            command = (self._make, "--no-print-directory", target)
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=kept, stderr=subprocess.STDOUT)
            self._running.add(process)
        status = process.wait()
        with self._turn:
            self._running.discard(process)
        return status

    def _tell(self, verdict: str, kept: IO[bytes] | None) -> None:
        said = b""
        if kept is not None:
            kept.seek(0)
            said = kept.read()
        with self._turn:
            sys.stdout.buffer.write(f"\n--- {verdict}\n".encode() + said)
            sys.stdout.buffer.flush()


def main(arguments: Sequence[str]) -> int:
    """Run the lanes of a command line; return 0 where every target passed, and 1 otherwise."""
    make, *written = arguments
    lanes, failed = Lanes(make), []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while written:
            end = written.index(AFTERWARDS) if AFTERWARDS in written else len(written)
            failed += _together(lanes, written[:end])
            written = written[end + 1 :]
    except KeyboardInterrupt:
        return INTERRUPTED
    if failed:
        print(f"\nNot everything passed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def _together(lanes: Lanes, written: Sequence[str]) -> list[str]:
    """Run lanes side by side; return what failed, in the lanes' order."""
    with ThreadPoolExecutor(len(written)) as pool:
        try:
            ends = [pool.submit(lanes.run, lane.split(), aloud=not place) for place, lane in enumerate(written)]
            return [target for end in ends if (target := end.result()) is not None]
        except KeyboardInterrupt:
            lanes.stop()
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
