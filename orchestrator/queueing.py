"""Which waiting attempts may start: a pure decision over those that wait, those that run, and how many a host may have.

A host sends and takes as many machines at once as its `Slots` say. Higher priority goes first; among equals the source
that sends fewest, then the one that was served longest ago, then who waits longest: a host with many machines to send
does not keep others from a destination that all of them want. One that cannot start does not hold up others between
other hosts. An update moves nothing, and needs no slot.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Slots:
    """How many machines a host sends and takes at once: of its own, else as every host."""

    outgoing: int = 1
    incoming: int = 1
    outgoing_of: Mapping[str, int] = field(default_factory=dict)
    incoming_of: Mapping[str, int] = field(default_factory=dict)

    def out_of(self, host: str) -> int:
        """Return how many machines a host sends at once."""
        return self.outgoing_of.get(host, self.outgoing)

    def into(self, host: str) -> int:
        """Return how many machines a host takes at once."""
        return self.incoming_of.get(host, self.incoming)

    def raised(self, outgoing: Mapping[str, int], incoming: Mapping[str, int]) -> "Slots":
        """Return slots that are at least so many for these hosts; none becomes less."""
        return replace(
            self,
            outgoing_of={**self.outgoing_of, **{host: max(self.out_of(host), n) for host, n in outgoing.items()}},
            incoming_of={**self.incoming_of, **{host: max(self.into(host), n) for host, n in incoming.items()}},
        )


ONE_EACH_WAY = Slots()


def may_start(
    waiting: Iterable[Attempt],
    running: Iterable[Attempt],
    slots: Slots = ONE_EACH_WAY,
    served: Mapping[str, float] | None = None,
) -> Sequence[Attempt]:
    """Return those that may start now, in order; `served` says when each source last began to send, in any unit."""
    load = _Load(slots, running)
    last, chosen = served or {}, list[Attempt]()
    by_priority: dict[int, list[Attempt]] = {}
    for one in waiting:
        by_priority.setdefault(one.priority, []).append(one)
    for priority in sorted(by_priority, reverse=True):
        left = by_priority[priority]
        while started := _one_of_each_source(left, load, last):
            chosen += started
            gone = {one.attempt for one in started}
            left = [one for one in left if one.attempt not in gone]
    return chosen


class _Load:
    """What every host sends and takes."""

    def __init__(self, slots: Slots, running: Iterable[Attempt]) -> None:
        active = [one for one in running if not one.asked.update]
        self.slots = slots
        self.outgoing = Counter(one.source for one in active)
        self.incoming = Counter(one.destination for one in active)

    def take(self, one: Attempt) -> bool:
        """Count an attempt, where both hosts have a slot for it, or it needs none."""
        if one.asked.update:
            return True
        if self.outgoing[one.source] >= self.slots.out_of(one.source):
            return False
        if self.incoming[one.destination] >= self.slots.into(one.destination):
            return False
        self.outgoing[one.source] += 1
        self.incoming[one.destination] += 1
        return True


def _one_of_each_source(left: Iterable[Attempt], load: _Load, last: Mapping[str, float]) -> list[Attempt]:
    """Return what each source may start next; who sends fewest, and then was served longest ago, chooses first."""
    never, started = float("-inf"), dict[str, Attempt]()
    key = {one.source: (load.outgoing[one.source], last.get(one.source, never)) for one in left}
    for one in sorted(left, key=lambda one: (key[one.source], one.created_at, one.attempt)):
        if one.source not in started and load.take(one):
            started[one.source] = one
    return list(started.values())


def waits_for(attempt: Attempt, running: Iterable[Attempt], slots: Slots = ONE_EACH_WAY) -> str:
    """Return what a waiting attempt waits for, for people."""
    active = list(running)
    sent = sum(one.source == attempt.source for one in active)
    taken = sum(one.destination == attempt.destination for one in active)
    busy = []
    if sent >= slots.out_of(attempt.source):
        busy.append(f"{attempt.source} sends {_machines(sent)}")
    if taken >= slots.into(attempt.destination):
        busy.append(f"{attempt.destination} takes {_machines(taken)} in")
    return f"waits for its turn: {' and '.join(busy)}" if busy else "waits for its turn"


def _machines(count: int) -> str:
    return "another machine" if count == 1 else f"{count} other machines"
