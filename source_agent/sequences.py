"""The highest sequence seen of another host's journal: one that tells a lower number was rolled back.

A host that was restored from a snapshot speaks of a past that both sides have left behind. Nothing that it says is
acted on.

An answer may be overtaken: by a later answer, or by what the peer says when it asks. What tells is therefore not what
was seen by the time it is read, but what had been seen when it was asked for: a peer that answers with less than that
has gone back.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.errors import Stale

ROLLED_BACK: Final = "journal-rolled-back"


@dataclass
class SeenSequence:
    """What one peer told for one attempt, in this life of the agent."""

    highest: int = 0

    def note(self, sequence: int, peer: str, *, since: int | None = None) -> bool:
        """Take a peer's number; 0 says that it tells none. Say whether nothing newer was seen: else it was overtaken.

        `since` is the highest that was seen when the peer was asked; without it, nobody asked.

        Raises:
            Stale: The peer told a higher one before.
        """
        before = self.highest if since is None else since
        if 0 < sequence < before:
            text = f"The journal of {peer} stands at record {sequence}, and stood at {before} before"
            raise Stale(ROLLED_BACK, text, "It was restored from an older copy: viaduct doctor")
        overtaken = 0 < sequence < self.highest
        self.highest = max(self.highest, sequence)
        return not overtaken
