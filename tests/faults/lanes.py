"""Lanes as whoever gives them rows sees them: processes in namespaces of their own, which answer row by row."""

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.faults.lane import NO_CABLES
from tests.faults.network import own_world
from tests.faults.observation import Observation
from tests.faults.rows import Row

ROOT = Path(__file__).resolve().parents[2]
ANSWER_SECONDS = 900.0
_END_SECONDS = 30.0
WITHOUT_CABLES = (
    "This machine allows no network namespaces (unshare --net, ip link add): partitions are LEFT OUT of the matrix"
)


class LaneProcess:
    """One lane, started when it is first needed; nothing of it outlives `close`."""

    def __init__(self, folder: Path) -> None:
        """Keep everything that the lane writes in a folder."""
        self._folder = folder
        self._folder.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def play(self, row: Row) -> Observation:
        """Play a row; a lane that ended, or does not answer, is told as a failure of the harness."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{row}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            return self._ended(row, "ended before it was asked")
        if not select.select([process.stdout], [], [], ANSWER_SECONDS)[0]:
            return self._ended(row, f"did not answer within {ANSWER_SECONDS:.0f} s")
        line = process.stdout.readline()
        if not line:
            return self._ended(row, "ended")
        return msgspec.json.decode(line, type=Observation)

    def close(self) -> None:
        """Let the lane take its site down, and end it."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            world = own_world()
            # A shell is the first process of its namespace: it reaps what loses its parent.
            words = [sys.executable, "-m", "tests.faults.lane", *([] if world else [NO_CABLES])]
            command = [*(world or ()), "sh", "-c", '"$@"; exit $?', "lane", *words]
            with (self._folder / "lane.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
                    env={**os.environ, "TMPDIR": str(self._folder)},
                )  # fmt: skip
        return self._process

    def _ended(self, row: Row, how: str) -> Observation:
        if self._process is not None:
            self._process.kill()
        self.close()
        said = (self._folder / "lane.log").read_text(errors="replace")[-2000:]
        return Observation(row=str(row), broken=f"the lane {how}: {said}")
