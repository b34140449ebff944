"""A hook that holds a migration where it runs, until the test lets it go on."""

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.system.attempts import DEADLINE


@dataclass(frozen=True)
class Gate:
    """A command that notes that it runs, and ends when the gate is opened."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        os.mkfifo(self.folder / "gate")

    def hooks(self, *points: str) -> str:
        """Return the `[hooks]` section that holds a migration at some points."""
        # Opened before it is said that somebody waits: a gate that nobody reads from cannot be opened.
        command = f"sh -c 'exec 3<>{self.folder}/gate; : >> {self.folder}/reached; read -r word <&3'"
        return "[hooks]\n" + "".join(f"{point} = [{json.dumps(command)}]\n" for point in points)

    async def reached(self) -> None:
        """Wait until a migration is held."""
        async with asyncio.timeout(DEADLINE):
            while not (self.folder / "reached").exists():  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.02)

    def open(self) -> None:
        """Let whatever waits here go on; who comes later waits again."""
        (self.folder / "reached").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # nobody waits
            gate = os.open(self.folder / "gate", os.O_WRONLY | os.O_NONBLOCK)
            os.write(gate, b"go\n")
            os.close(gate)
