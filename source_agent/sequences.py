"""The highest sequence seen of another host's journal: one that tells a lower number was rolled back.

A host that was restored from a snapshot speaks of a past that both sides have left behind. Nothing that it says is
acted on.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.errors import Stale

ROLLED_BACK: Final = "journal-rolled-back"


@dataclass
class SeenSequence:
    """What one peer told for one attempt, in this life of the agent."""

    highest: int = 0

    def note(self, sequence: int, peer: str) -> None:
        """Take a peer's number; 0 says that it tells none.

        Raises:
            Stale: The peer told a higher one before.
        """
        if 0 < sequence < self.highest:
            text = f"The journal of {peer} stands at record {sequence}, and stood at {self.highest} before"
            raise Stale(ROLLED_BACK, text, "It was restored from an older copy: viaduct doctor")
        self.highest = max(self.highest, sequence)
