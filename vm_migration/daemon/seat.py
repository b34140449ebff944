"""Which process is a host's agent: the last one that started. Whoever finds another in its seat ends itself.

An agent that was frozen, and was given up for another, has lost the journals that the other one opened; this has it let
go of its port, its connections and its memory too. Nothing rests on it but that: the journal's controller and the
machine process's fence keep its stale commands from doing anything.
"""

import asyncio
import uuid
from pathlib import Path
from typing import Final

_LOOK_EVERY: Final = 1.0


class Seat:
    """One side's seat on a host: a file in state_dir with the name of one life."""

    def __init__(self, state_dir: Path, side: str) -> None:
        self._path: Final = state_dir / f"{side}-agent.life"
        self._life: Final = uuid.uuid4().hex

    def take(self) -> None:
        """Be the host's agent from here on.

        Raises:
            OSError: The folder cannot be written.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{self._life}")
        fresh.write_text(self._life)
        fresh.rename(self._path)

    @property
    def taken(self) -> bool:
        """Whether another life is in it; a file that cannot be read tells nothing."""
        try:
            return self._path.read_text() != self._life
        except OSError:
            return False

    async def lost(self) -> None:
        """Return when another life has taken it."""
        while not self.taken:  # noqa: ASYNC110 - a file has no event that outlives a frozen process
            await asyncio.sleep(_LOOK_EVERY)
