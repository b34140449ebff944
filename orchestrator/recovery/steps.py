"""What a recovery did, and what it could not."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or failed with an `error`."""

    machine: str
    name: str
    host: str
    action: str
    message: str
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether it came to what it was meant to."""
        return not self.error


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A machine of which something is still open, why, and what to do."""

    machine: str
    name: str
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that came of a recovery."""

    steps: tuple[Step, ...] = field(default=())
    unresolved: tuple[Unsettled, ...] = field(default=())
    unheard: tuple[str, ...] = field(default=())
    """Hosts that told nothing: what is open there is not known."""
