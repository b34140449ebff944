"""The matrix as data: what is done, to whom, when, and when it is put right again. A row's text replays it.

kill:source-agent:handing-over:late      freeze:destination-vmm:ready:late      cut:between:1.250s:late
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Deed(StrEnum):
    """What is done."""

    KILL = "kill"
    FREEZE = "freeze"
    CUT = "cut"
    """A cable is pulled: nothing is heard any more, and nothing closes."""


class Victim(StrEnum):
    """To whom; the hosts and `between` have cables, the others are processes, and two are both."""

    SOURCE_VMM = "source-vmm"
    DESTINATION_VMM = "destination-vmm"
    SOURCE_VFIO_HOST = "source-vfio-host"
    DESTINATION_VFIO_HOST = "destination-vfio-host"
    SOURCE_AGENT = "source-agent"
    DESTINATION_AGENT = "destination-agent"
    ORCHESTRATOR = "orchestrator"
    LEADER = "leader"
    """The orchestrator that leads, of two over one etcd."""
    ETCD = "etcd"
    """The member that leads that etcd, of three."""
    ETCD_MAJORITY = "etcd-majority"
    """That member and another one: nobody can write then."""
    CLI = "cli"
    """The command, where no daemon runs: it drives its own attempt."""
    BROKER = "broker"
    SOURCE = "source"
    DESTINATION = "destination"
    BETWEEN = "between"
    """Source and destination do not hear each other; everybody else hears both."""


class When(StrEnum):
    """A boundary at which an attempt can be held: what the journals say then is in tests.faults.holds."""

    QUEUED = "queued"
    PREFLIGHT = "preflight"
    BEGINNING = "beginning"
    PREPARING = "preparing"
    PREPARED = "prepared"
    BEGUN = "begun"
    PRE_COPY = "pre-copy"
    STOPPING = "stopping"
    VERIFYING = "verifying"
    READY = "ready"
    RELEASING = "releasing"
    HANDING_OVER = "handing-over"
    ACTIVE = "active"
    COMPLETED = "completed"


class Back(StrEnum):
    """When the victim is back: restarted by its service manager, thawed, or plugged in again."""

    NEVER = "never"
    SOON = "soon"
    LATE = "late"
    """After whoever waits for it has given up, or has waited past its calls' deadlines."""
    LAST = "last"
    """After the longest patience that anybody has."""


MACHINES = (Victim.SOURCE_VMM, Victim.DESTINATION_VMM, Victim.SOURCE_VFIO_HOST, Victim.DESTINATION_VFIO_HOST)
AGENTS = (Victim.SOURCE_AGENT, Victim.DESTINATION_AGENT)
DRIVERS = (Victim.ORCHESTRATOR, Victim.LEADER, Victim.CLI)
PAIRED = (Victim.LEADER, Victim.ETCD, Victim.ETCD_MAJORITY)
"""What there is where two orchestrators share an etcd."""
CABLES = (Victim.SOURCE, Victim.DESTINATION, Victim.BETWEEN, Victim.ORCHESTRATOR, Victim.LEADER, Victim.BROKER)
_ARRIVED = tuple(When)[tuple(When).index(When.BEGUN) :]
_NEAR_THE_END = (When.PRE_COPY, When.RELEASING, When.COMPLETED)
LONGEST_RANDOM = 4.0
"""Seconds after the order; a whole attempt at the random rows' bandwidth takes about as long."""


@dataclass(frozen=True, order=True)
class Row:
    """One fault."""

    deed: Deed
    victim: Victim
    when: When | float
    """A boundary, or seconds after the order was given."""
    back: Back

    def __str__(self) -> str:
        when = self.when.value if isinstance(self.when, When) else f"{self.when:.3f}s"
        return f"{self.deed.value}:{self.victim.value}:{when}:{self.back.value}"


def parse(text: str) -> Row:
    """Read a row's text; ValueError says what is wrong with it."""
    words = text.split(":")
    if len(words) != 4:
        raise ValueError(f"{text} is not deed:victim:when:back")
    deed, victim, when, back = words
    seconds = when.endswith("s") and when[:-1].replace(".", "", 1).isdecimal()
    row = Row(Deed(deed), Victim(victim), float(when[:-1]) if seconds else When(when), Back(back))
    if not possible(row):
        raise ValueError(f"{text} cannot happen")
    return row


def possible(row: Row) -> bool:
    """Tell whether a row makes sense: there is such a process then, and such a way to be back."""
    if row.deed is Deed.CUT:
        return row.victim in CABLES and row.back in (Back.LATE, Back.LAST)
    if row.victim in (Victim.SOURCE, Victim.DESTINATION, Victim.BETWEEN):
        return False
    if isinstance(row.when, When) and not _is_there(row.victim, row.when):
        return False
    if row.deed is Deed.FREEZE:
        return row.back in (Back.LATE, Back.LAST)
    gone_for_good = row.victim in MACHINES or row.victim is Victim.CLI
    return (row.back is Back.NEVER) if gone_for_good else row.back in (Back.SOON, Back.LATE, Back.LAST)


def _is_there(victim: Victim, when: When) -> bool:
    if victim in (Victim.DESTINATION_VMM, Victim.DESTINATION_VFIO_HOST):
        return when in _ARRIVED
    if victim in (Victim.SOURCE_VMM, Victim.SOURCE_VFIO_HOST):
        return when is not When.COMPLETED  # its copy is freed then
    return victim is not Victim.CLI or when not in (When.QUEUED, When.COMPLETED)  # it has no queue, and ends


def boundaries(*, cables: bool) -> Iterator[Row]:
    """Yield every row at a boundary."""
    for deed in Deed:
        if deed is Deed.CUT and not cables:
            continue
        for victim in Victim:
            for when in When:
                if victim is Victim.BROKER and when not in _NEAR_THE_END:
                    continue  # nobody waits for it: three moments stand for all
                for back in Back:
                    row = Row(deed, victim, when, back)
                    if possible(row) and (back is not Back.LAST or _worth_the_longest_wait(row)):
                        yield row


def _worth_the_longest_wait(row: Row) -> bool:
    """Those who are asked for longest by others: they take more than a minute each."""
    asked = row.victim in (*AGENTS, Victim.SOURCE, Victim.DESTINATION)
    return asked and row.deed is not Deed.KILL and row.when in (When.PRE_COPY, When.RELEASING)


def chosen(count: int, seed: int, *, cables: bool) -> list[Row]:
    """Return so many rows: five sixths at boundaries, spread over all of them, the rest at random moments."""
    rng = random.Random(seed)  # noqa: S311 - it shuffles rows
    every = list(boundaries(cables=cables))
    rng.shuffle(every)
    fixed = every[: max(0, count - count // 6)]
    return fixed + [_random_row(rng, cables=cables) for _ in range(count - len(fixed))]


def _random_row(rng: random.Random, *, cables: bool) -> Row:
    deeds: Sequence[Deed] = [deed for deed in Deed if cables or deed is not Deed.CUT]
    while True:
        when = round(rng.uniform(0.0, LONGEST_RANDOM), 3)
        row = Row(rng.choice(deeds), rng.choice(list(Victim)), when, rng.choice([Back.NEVER, Back.SOON, Back.LATE]))
        if possible(row) and row.victim is not Victim.BROKER:
            return row
