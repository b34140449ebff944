"""What it costs that agents carry QEMU's own migration: real QEMU machines moved by us, beside QEMU alone.

Everybody moves the same 2 GiB of random bytes, in turns, and nobody compares them afterwards: QEMU alone does not.
Ours is gRPC between the agents, without TLS as QEMU alone is, and with TLS 1.3 as users have it; or QEMU's own TLS 1.3
that they set up (direct). It gets ready before it begins: where that is counted, it says so. QEMU alone is as a user
starts it, without TLS or with, or with its destination's memory touched beforehand, as ours is.
"""

import sys
from collections.abc import Callable
from statistics import median
from typing import Final

from benchmarks.beside.measures import Run, beside, completed, downtime, total, unfit, whole
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import (
    BY_ITSELF,
    BY_ITSELF_BY_TWO,
    CARRIED,
    CARRIED_BY_TWO,
    CARRIED_OPENLY,
    CARRIED_OPENLY_BY_TWO,
    MULTIFD_2,
    MULTIFD_AS_STARTED,
    PLAIN,
    PLAIN_READY,
    QEMU_GIGABIT,
    QEMU_LOOPBACK,
    SECURED,
    Scenario,
)
from benchmarks.beside.turns import play
from benchmarks.figures import Row

_ADDED_MS: Final = 30.0
_AS_STARTED: Final = (1.4, 2.2)
"""What must be reached beside a QEMU whose destination got nothing ready, where our Prepare counts."""
_PREPARED: Final = "with Prepare, over {} as started"
_RATIOS: Final[tuple[tuple[str, str, str, str, float | None], ...]] = (
    (QEMU_LOOPBACK.name, CARRIED_OPENLY.name, PLAIN.name, _PREPARED.format("QEMU plain"), 1.4),
    (QEMU_LOOPBACK.name, CARRIED_OPENLY_BY_TWO.name, MULTIFD_AS_STARTED.name, _PREPARED.format("multifd 2"), 2.2),
    (QEMU_LOOPBACK.name, CARRIED.name, PLAIN.name, _PREPARED.format("QEMU plain"), 1.4),
    (QEMU_LOOPBACK.name, CARRIED_BY_TWO.name, MULTIFD_AS_STARTED.name, _PREPARED.format("multifd 2"), 2.2),
    (QEMU_LOOPBACK.name, CARRIED_OPENLY.name, PLAIN_READY.name, "over QEMU plain, preallocated", None),
    (QEMU_LOOPBACK.name, CARRIED_OPENLY_BY_TWO.name, MULTIFD_2.name, "over QEMU multifd 2, preallocated", None),
    (QEMU_LOOPBACK.name, CARRIED.name, PLAIN_READY.name, "over QEMU plain, preallocated", None),
    (QEMU_LOOPBACK.name, CARRIED_BY_TWO.name, MULTIFD_2.name, "over QEMU multifd 2, preallocated", None),
    (QEMU_LOOPBACK.name, BY_ITSELF.name, SECURED[0].name, "over QEMU plain with TLS, preallocated", 1.03),
    (QEMU_LOOPBACK.name, BY_ITSELF_BY_TWO.name, SECURED[1].name, "over QEMU multifd 2 with TLS, preallocated", 1.03),
    (QEMU_GIGABIT.name, CARRIED.name, PLAIN_READY.name, "over QEMU plain, preallocated, 1 Gbit/s", 1.03),
)
_ADDED: Final = {
    QEMU_LOOPBACK.name: f"QEMU machine, {CARRIED.name}: downtime beyond {PLAIN_READY.name}'s",
    QEMU_GIGABIT.name: f"QEMU machine, {CARRIED.name}: downtime beyond {PLAIN_READY.name}'s, 1 Gbit/s",
}
"""How much longer the guest stands still, by scenario."""


def _name(who: str, words: str) -> str:
    return f"QEMU machine, {who}: total time {words}"


PAGE_ROWS: Final = {"qemu": (*(_name(who, words) for _, who, _, words, _ in _RATIOS), *_ADDED.values())}


def measure(runs: int, size: int = 0) -> list[Row]:
    """Play both scenarios, in small where a size is given, and return their rows.

    Raises:
        RuntimeError: A movement did not complete, or this machine cannot measure it.
    """
    return rows_of({each.name: play(each, runs, size, _teller(each)) for each in (QEMU_LOOPBACK, QEMU_GIGABIT)})


def rows_of(played: dict[str, list[Sample]]) -> list[Row]:
    """Return the rows of what was played.

    Raises:
        RuntimeError: Somebody's movements cannot all be compared.
    """
    run, here, there = Run(played), QEMU_LOOPBACK.name, QEMU_GIGABIT.name
    for scenario in (QEMU_LOOPBACK, QEMU_GIGABIT):
        for who in (*(mode.name for mode in scenario.ours), *(mode.name for mode in scenario.peers)):
            said = unfit(run, scenario.name, who)
            if said is not None:
                raise RuntimeError(f"{scenario.name}, {who}: {said.words}")
    rows = [_added(_ADDED[here], played[here], _ADDED_MS), _added(_ADDED[there], played[there], None)]
    for name, who, other, words, must in _RATIOS:
        reading = beside(name, who, [other], whole if must in _AS_STARTED else total, total)(run)
        rows.append(Row(_name(who, words), "ratio", reading.values, must, "lower", note=reading.words))
    return rows


def _added(name: str, samples: list[Sample], must: float | None) -> Row:
    who, other = CARRIED.name, PLAIN_READY.name
    mine, theirs = completed(samples, who), completed(samples, other)
    values = tuple(downtime(mine[turn]) - downtime(theirs[turn]) for turn in sorted(mine.keys() & theirs.keys()))
    note = f"{median(map(downtime, mine.values())):.0f} ms beside {median(map(downtime, theirs.values())):.0f} ms"
    return Row(name, "ms", values, must, "lower", note=note)


def _teller(scenario: Scenario) -> Callable[[Sample], None]:
    def tell(sample: Sample) -> None:
        words = f"{sample.total_ms:.0f} ms, {sample.downtime_ms:.0f} ms down"
        words = words if sample.outcome == "completed" else f"{sample.outcome}: {sample.why[:200]}"
        sys.stderr.write(f"{scenario.name:16} {sample.turn:3} {sample.who:42} {words}\n")

    return tell
