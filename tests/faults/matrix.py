"""Which rows there are, and which of them a run takes."""

import random
from collections.abc import Iterator, Sequence

from tests.faults.rows import AGENTS, BOUNDARIES, QEMUS, Back, Deed, Ordered, Row, Victim, When, possible

_NEAR_THE_END = (When.PRE_COPY, When.RELEASING, When.COMPLETED)
LONGEST_RANDOM = 4.0
"""Seconds after the order; a whole attempt at the random rows' bandwidth takes about as long."""
LONGEST_RANDOM_UPDATE = 2.0
"""The same of an update."""


def boundaries(*, cables: bool) -> Iterator[Row]:
    """Yield every row at a boundary."""
    for ordered in Ordered:
        for deed in Deed:
            if deed is Deed.CUT and not cables:
                continue
            for victim in Victim:
                for when in BOUNDARIES[ordered]:
                    if _one_moment_stands_for_others(ordered, victim, when):
                        continue
                    for back in Back:
                        row = Row(deed, victim, when, back, ordered)
                        if possible(row) and (back is not Back.LAST or _worth_the_longest_wait(row)):
                            yield row


def _one_moment_stands_for_others(ordered: Ordered, victim: Victim, when: When) -> bool:
    """Tell whether nobody waits for a victim, so that few moments of it are enough, and this is none of them."""
    if ordered is Ordered.MOVE or ordered in QEMUS:
        return victim is Victim.BROKER and when not in _NEAR_THE_END
    return victim is Victim.DESTINATION_AGENT and when not in (When.PREPARED, When.RESUMING)


def _worth_the_longest_wait(row: Row) -> bool:
    """Those who are asked for longest by others: they take more than a minute each."""
    asked = row.victim in (*AGENTS, Victim.SOURCE, Victim.DESTINATION)
    return asked and row.deed is not Deed.KILL and row.when in (When.PRE_COPY, When.RELEASING) and not row.updates


def chosen(count: int, seed: int, *, cables: bool, ordered: Sequence[Ordered] = tuple(Ordered)) -> list[Row]:
    """Return so many rows: five sixths at boundaries, spread over all of them, the rest at random moments."""
    rng = random.Random(seed)  # noqa: S311 - it shuffles rows
    every = [row for row in boundaries(cables=cables) if row.ordered in ordered]
    rng.shuffle(every)
    fixed = every[: max(0, count - count // 6)]
    return fixed + [_random_row(rng, ordered, cables=cables) for _ in range(count - len(fixed))]


def _random_row(rng: random.Random, ordered: Sequence[Ordered], *, cables: bool) -> Row:
    deeds: Sequence[Deed] = [deed for deed in Deed if cables or deed is not Deed.CUT]
    while True:
        what = rng.choice(ordered)
        when = round(rng.uniform(0.0, LONGEST_RANDOM if what is Ordered.MOVE else LONGEST_RANDOM_UPDATE), 3)
        back = rng.choice([Back.NEVER, Back.SOON, Back.LATE])
        row = Row(rng.choice(deeds), rng.choice(list(Victim)), when, back, what)
        if possible(row) and row.victim is not Victim.BROKER:
            return row
