"""What an agent has to do at this moment, as it tells whoever chooses a host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Burden:
    """The attempts that are open at one agent, and the memory that it keeps for machines, by UUID, in bytes."""

    attempts: int = 0
    reserved: Mapping[str, int] = field(default_factory=dict)


TellBurden = Callable[[], Burden]


def no_burden() -> Burden:
    """Have nothing to do."""
    return Burden()
