"""`python -m tests.simulation`: many schedules on all cores, or one again, with its trace.

::

    python -m tests.simulation --count 2016             schedules 0 to 2015, all pairs of a state and a fault
    python -m tests.simulation --count 100000 --seed 2016
    python -m tests.simulation --replay 4711            one schedule, its trace, and the fewest of its faults that fail

It exits with 8 where a rule was broken, or where a kind of fault struck nowhere at some state of the handover.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import Final

from tests.simulation.faults import KINDS, STATES, Plan, drawn
from tests.simulation.schedule import run
from tests.simulation.tally import PAIRS, Tally, leave_imports_alone, tally, trace_text

_CHUNK: Final = 24


def main() -> int:
    """Read the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--count", type=int, default=PAIRS, help="how many schedules (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; progress goes to stderr")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one schedule again and print its trace")
    told = parser.parse_args()
    if told.replay is not None:
        return _replay(told.replay)
    return _many(told.seed, told.count, told.jobs, as_json=told.json)


def _replay(seed: int) -> int:
    plan = drawn(seed)
    seen = run(plan)
    _say(trace_text(seen.trace))
    _say(f"\nseed {seed}: {seen.failure or seen.ending}, {seen.steps} steps")
    for fault in plan.faults:
        _say(f"  {fault}")
    if not seen.failure:
        return 0
    fewer = _shrunk(plan, seen.rule)
    if len(fewer.faults) < len(plan.faults):
        _say(f"\n{seen.rule} also with only:")
        for fault in fewer.faults:
            _say(f"  {fault}")
    return 8


def _shrunk(plan: Plan, rule: str) -> Plan:
    """Drop faults as long as the same rule is broken."""
    for fault in plan.faults:
        fewer = replace(plan, faults=tuple(each for each in plan.faults if each is not fault))
        if run(fewer).rule == rule:
            return _shrunk(fewer, rule)
    return plan


def _many(first: int, count: int, jobs: int, *, as_json: bool) -> int:
    started, counted = time.perf_counter(), Tally()
    for part in _chunks(first, count, jobs):
        counted.merge(part)
        for failure in part.failures:
            _report(f"\nseed {failure.seed}: {failure.text}")
        took = time.perf_counter() - started
        rate = counted.schedules / took
        _report(f"\r{counted.schedules}/{count} schedules, {rate:.0f} a second, {len(counted.failures)} failed", end="")
    _report("")
    seconds = time.perf_counter() - started
    missing = counted.never_hit() if count >= PAIRS else []
    if as_json:
        _say(json.dumps(_document(counted, first, count, seconds)))
    else:
        _tell(counted, seconds)
    for failure in counted.failures[:3]:
        _report(f"\n{failure}")
    for state, kind in missing:
        _report(f"no schedule has brought {kind} together with {state}")
    return 8 if counted.failures or missing else 0


def _chunks(first: int, count: int, jobs: int) -> Iterator[Tally]:
    seeds = [range(at, min(at + _CHUNK, first + count)) for at in range(first, first + count, _CHUNK)]
    if jobs == 1:
        leave_imports_alone()
        yield from map(tally, seeds)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), leave_imports_alone) as pool:
        for done in as_completed([pool.submit(tally, each) for each in seeds]):
            yield done.result()


def _document(counted: Tally, first: int, count: int, seconds: float) -> dict[str, object]:
    return {
        "schema": "viaduct.simulation.v1",
        "first_seed": first,
        "schedules": count,
        "seconds": round(seconds, 3),
        "steps": counted.steps,
        "guest_starts": counted.guest_starts,
        "journals_refused": counted.rolled_back,
        "endings": dict(counted.endings),
        "outcomes": dict(counted.outcomes),
        "faults": {kind: sum(counted.hits[state, kind] for state in STATES) for kind in KINDS},
        "messages": dict(counted.weathered),
        "never_hit": [f"{kind} at {state}" for state, kind in counted.never_hit()],
        "failures": [{"seed": each.seed, "rule": each.rule, "text": each.text} for each in counted.failures],
    }


def _tell(counted: Tally, seconds: float) -> None:
    _say(f"{counted.schedules} schedules in {seconds:.1f} s, {1000 * seconds / counted.schedules:.1f} ms each")
    _say(f"{counted.steps} steps of the loop, the guest was started {counted.guest_starts} times")
    _say(f"in {counted.rolled_back} of them a journal that was rolled back was refused")
    for title, counts in (
        ("ended", counted.endings), ("attempts", counted.outcomes), ("messages", counted.weathered),
    ):  # fmt: skip
        _say(f"{title:9s} " + ", ".join(f"{name} {number}" for name, number in counts.most_common()))
    width = max(len(state) for state in STATES)
    _say(f"\n{'faults struck at':34s}" + " ".join(f"{state:>{width}s}" for state in STATES))
    for kind in KINDS:
        _say(f"{kind:34s}" + " ".join(f"{counted.hits[state, kind]:{width}d}" for state in STATES))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _report(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
