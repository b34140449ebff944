"""A host of twelve machines is emptied in containers, two at a time, over links of 500 Mbit/s.

::

    deploy/compose.yaml on a real engine, what each host sends into the migration network shaped (tc-tbf(8))
    host-a: 12 machines of 128 MiB that each write 2 MiB a second, the vCPU half of it and a device the other
    in the operator's container: viaduct evacuate host-a --parallel 2

Time is the evacuation's, from its entry to the end of its last machine, as the orchestrator wrote it down. Bytes are
what the kernel counted meanwhile of what host-a sent into the migration network. Between two runs the machines go back.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Row
from tests.deployment.deployment import HOSTS, MIGRATION, Deployment
from tests.deployment.engine import some_engine
from tests.deployment.links import counted, shaped
from tests.deployment.machine import Machine, Migrated
from tests.deployment.making import deployed

MACHINES: Final = 12
RATE: Final = "500mbit"
BYTES_PER_S: Final = 500e6 / 8
BESIDE: Final = "12 machines leave a host, two at a time over 500 Mbit/s: time over bytes / rate of the link"
TOOK: Final = "the same: from the evacuation's entry to its end"
SENT: Final = "the same: what the host sent"
STOOD: Final = "the same: how long each guest stood still"
LEFT: Final = "the same: machines that were not moved"
DIFFERED: Final = "the same: pages that differed"
ERRORS: Final = "the same: errors that guests saw"
PAGE_ROWS: Final = {"containers": (BESIDE, TOOK, SENT, STOOD, LEFT, DIFFERED, ERRORS)}
_RUNS: Final = 3
_AT_MOST: Final = 1.3
_PATIENTLY: Final = ("--downtime-limit", "1s")
_SPECIFICATION: Final = """
name = "{name}"
memory.size = "128MiB"
[guest]
cpu_dirty_rate = "1MiB/s"
working_set = "16MiB"
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
dma_rate = "1MiB/s"
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one evacuation; bytes are those on the link, headers included."""

    seconds: float
    sent_bytes: int
    downtimes_ms: tuple[float, ...]
    left: int
    differed: int
    errors: int

    @property
    def beside_the_link(self) -> float:
        """Its time over what its bytes take at the link's rate."""
        return self.seconds / (self.sent_bytes / BYTES_PER_S)


class _Moved(msgspec.Struct):
    attempt: str | None
    outcome: str | None
    downtime_ms: float | None


class _Evacuation(msgspec.Struct):
    machines: list[_Moved]
    created: datetime
    updated: datetime


class _Attempt(msgspec.Struct):
    result: Migrated


def measure(runs: int) -> list[Row]:
    """Return what so many evacuations came to, at most three."""
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-bench-") as folder,
        some_engine() as engine,
        deployed(engine, Path(folder), VIADUCT_MEMORY_BUDGET="4GiB") as site,
    ):
        machines = [Machine.create(site, f"guest-{number:02}", _SPECIFICATION) for number in range(MACHINES)]
        found = []
        for number in range(min(runs, _RUNS)):
            if number:
                back = site.viaduct("restore", "host-a", "--parallel", str(MACHINES), *_PATIENTLY)
                assert back.exit_code == 0, back.out + back.err
            found.append(_run(site, machines))
    return rows(found)


def rows(found: Sequence[Run]) -> list[Row]:
    """Return the figures of some runs."""
    return [
        Row(BESIDE, "ratio", tuple(run.beside_the_link for run in found), must=_AT_MOST, better="lower"),
        Row(TOOK, "s", tuple(run.seconds for run in found)),
        Row(SENT, "MB", tuple(run.sent_bytes / 1e6 for run in found)),
        Row(STOOD, "ms", tuple(each for run in found for each in run.downtimes_ms)),
        _none(LEFT, "machines", [run.left for run in found]),
        _none(DIFFERED, "pages", [run.differed for run in found]),
        _none(ERRORS, "errors", [run.errors for run in found]),
    ]


def _none(name: str, unit: str, counts: Sequence[int]) -> Row:
    return Row(name, unit, (float(sum(counts)),), must=0, better="lower", worst=True)


def _run(site: Deployment, machines: Sequence[Machine]) -> Run:
    with shaped(site, RATE, *HOSTS):
        before = counted(site, "host-a", MIGRATION, "tx")
        ended = site.viaduct("evacuate", "host-a", "--parallel", "2", "--json", *_PATIENTLY)
        sent = counted(site, "host-a", MIGRATION, "tx") - before
    told = msgspec.json.decode(ended.out, type=_Evacuation)
    moved = [each.attempt for each in told.machines if each.outcome == "completed" and each.attempt is not None]
    results = [_result(site, attempt) for attempt in moved]
    return Run(
        seconds=(told.updated - told.created).total_seconds(),
        sent_bytes=sent,
        downtimes_ms=tuple(each.downtime_ms for each in told.machines if each.downtime_ms is not None),
        left=len(machines) - len(moved),
        differed=sum(each.pages_mismatched for each in results),
        errors=sum(machine.show().guest.errors for machine in machines),
    )


def _result(site: Deployment, attempt: str) -> Migrated:
    shown = site.viaduct("show", attempt, "--json")
    return msgspec.json.decode(shown.out, type=_Attempt).result
