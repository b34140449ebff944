"""What goes wrong in a schedule, when, and to whom; drawn from a seed.

A fault strikes when a host's journal has durably come to a state, some steps of the loop later: at the steps that
matter, and at every one between them. Whom it strikes is named by the part that a host plays in that attempt.
"""

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from vm_migration.handover.states import State

Part = Literal["source", "destination", "third"]
PARTS: Final[tuple[Part, ...]] = ("source", "destination", "third")


class Kind(StrEnum):
    """What can go wrong."""

    KILL_SOURCE_AGENT = "kill-source-agent"
    KILL_DEST_AGENT = "kill-dest-agent"
    KILL_SOURCE_AT_DISK = "kill-source-agent-writing"
    KILL_DEST_AT_DISK = "kill-dest-agent-writing"
    FREEZE_SOURCE_AGENT = "freeze-source-agent"
    FREEZE_DEST_AGENT = "freeze-dest-agent"
    REPLACE_SOURCE_AGENT = "replace-frozen-source-agent"
    REPLACE_DEST_AGENT = "replace-frozen-dest-agent"
    KILL_MACHINE_SOURCE = "kill-machine-at-source"
    KILL_MACHINE_DEST = "kill-machine-at-destination"
    SILENT_MACHINE_SOURCE = "silent-machine-at-source"
    SILENT_MACHINE_DEST = "silent-machine-at-destination"
    POWER_SOURCE = "power-loss-at-source"
    POWER_DEST = "power-loss-at-destination"
    FSYNC_SOURCE = "fsync-fails-at-source"
    FSYNC_DEST = "fsync-fails-at-destination"
    WRITE_SOURCE = "write-torn-at-source"
    WRITE_DEST = "write-torn-at-destination"
    FULL_SOURCE = "disk-full-at-source"
    FULL_DEST = "disk-full-at-destination"
    ROLL_BACK_SOURCE = "roll-back-source"
    ROLL_BACK_DEST = "roll-back-destination"
    PARTITION = "partition"
    PARTITION_ONE_WAY = "partition-one-way"
    WEATHER = "weather"
    KILL_ORCHESTRATOR = "kill-orchestrator"
    FREEZE_ORCHESTRATOR = "freeze-orchestrator"
    CANCEL = "cancel"
    FORCE = "force"
    SECOND_ORCHESTRATOR = "second-orchestrator"
    RECOVER = "recover"
    FENCE_SOURCE = "fence-source"
    FENCE_DEST = "fence-destination"


KINDS: Final = tuple(Kind)
STATES: Final = (
    State.OUTGOING, State.STOPPED, State.RELEASED, State.RETIRED, State.ABORTED, State.RECLAIMED, State.LOST,
    State.PREPARED, State.READY, State.ACTIVATING, State.ACTIVE, State.DISCARDED,
)  # fmt: skip
_LEADS: Final[dict[State, tuple[tuple[State, Kind, int], ...]]] = {
    State.ABORTED: ((State.PREPARED, Kind.CANCEL, 40),),
    State.DISCARDED: ((State.PREPARED, Kind.CANCEL, 200),),
    State.LOST: ((State.OUTGOING, Kind.KILL_MACHINE_SOURCE, 30),),
    State.RECLAIMED: ((State.RELEASED, Kind.KILL_MACHINE_DEST, 0),),
}
"""What brings a state about that a migration without faults does not come to."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: so many steps after a state became durable anywhere, the `nth` time that it does."""

    kind: Kind
    at: State
    steps: int
    seconds: float
    """How long it lasts, or until what was ended is started again."""
    nth: int = 1
    seed: int = 0
    lead: bool = False
    """It only brings about the state at which another one strikes."""

    def __str__(self) -> str:
        return f"{self.kind} {self.steps} steps after {self.at} (time {self.nth}), for {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule, as its seed draws it."""

    seed: int
    orders: int
    witness: bool
    forced: bool
    second_store_shared: bool
    faults: tuple[Fault, ...]


def drawn(seed: int) -> Plan:
    """Return the schedule of a seed. Seeds that follow each other go through all pairs of a state and a fault.

    The first time each pair comes alone, so that it surely comes about; later others are drawn beside it.
    """
    draw = random.Random(seed * 7919 + 17)  # noqa: S311 - a schedule, not a secret
    state = STATES[seed % len(STATES)]
    kind = KINDS[seed // len(STATES) % len(KINDS)]
    faults = [Fault(step, at, steps, 1.0, lead=True) for at, step, steps in _LEADS.get(state, ())]
    faults.append(replace(_fault(draw, kind, state), nth=1))
    more = draw.choice((0, 1, 1, 2, 3)) if seed >= len(STATES) * len(KINDS) else 0
    faults.extend(_fault(draw, draw.choice(KINDS), draw.choice(STATES)) for _ in range(more))
    return Plan(
        seed,
        orders=draw.choice((1, 1, 1, 1, 2, 3)),
        witness=draw.random() < 0.5,
        forced=draw.random() < 0.2,
        second_store_shared=draw.random() < 0.5,
        faults=tuple(faults),
    )


def _fault(draw: random.Random, kind: Kind, state: State) -> Fault:
    steps = draw.choice((0, 1, draw.randrange(8), draw.randrange(30), draw.randrange(120)))
    seconds = draw.choice((0.05, 0.5, 3.0, 15.0, 45.0)) * (0.2 + draw.random())
    nth = draw.choice((1, 1, 1, 2))
    return Fault(kind, state, steps, seconds, nth, draw.randrange(1 << 30))
