"""A hook that holds a migration where a test wants it held, until the test lets it go on."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.system.attempts import DEADLINE
from tests.system.processes import naming


@dataclass(frozen=True)
class Gate:
    """A command that notes that it runs, where a test has armed it, and ends when the gate is opened."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        os.mkfifo(self.folder / "gate")

    def hooks(self, *points: str) -> str:
        """Return the `[hooks]` section that can hold a migration at some points."""
        # Opened before it is said that somebody waits: a gate that nobody reads from cannot be opened.
        script = f"cd {self.folder}/; test -e $VIADUCT_HOOK || exit 0; exec 3<>gate; : >> reached; read -r word <&3"
        command = json.dumps(f"sh -c '{script}'")
        return "[hooks]\n" + "".join(f"{point} = [{command}]\n" for point in points)

    @contextlib.contextmanager
    def armed(self, point: str) -> Iterator[None]:
        """Have every migration that comes to a point wait there; at the end nobody waits any more."""
        (self.folder / point).touch()
        try:
            yield
        finally:
            (self.folder / point).unlink()
            until = time.monotonic() + DEADLINE
            while waiting := self.waiting():
                assert time.monotonic() < until, f"They wait at an open gate: {waiting}"
                self.open()
                time.sleep(0.02)  # /proc has no event for it
            (self.folder / "reached").unlink(missing_ok=True)

    def waiting(self) -> dict[int, str]:
        """Return the processes of whatever waits here, by their ids."""
        return naming(self.folder, set())

    async def left(self) -> None:
        """Wait until nobody waits here, of those whom nobody lets go on."""
        async with asyncio.timeout(DEADLINE):
            while self.waiting():  # noqa: ASYNC110 - /proc has no event for it
                await asyncio.sleep(0.02)

    async def reached(self) -> None:
        """Wait until a migration is held."""
        async with asyncio.timeout(DEADLINE):
            while not (self.folder / "reached").exists():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)

    def open(self) -> None:
        """Let one that waits here go on; who comes later waits again."""
        (self.folder / "reached").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # nobody waits
            gate = os.open(self.folder / "gate", os.O_WRONLY | os.O_NONBLOCK)
            os.write(gate, b"go\n")
            os.close(gate)
