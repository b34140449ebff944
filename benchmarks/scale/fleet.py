"""What simulated hosts know together: their machines, and attempts that take their time and move no memory.

The hosts of the orchestrator's own tests, given time, and made to find things among ten thousand. What an attempt goes
through is written down as it happens, for whoever measures how soon that is told.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from tests.orchestrator.fake_world import FakeAttempt, World
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import InvalidInput
from vmm.assembly.specification import MachineSpecification

GIB: Final = 1 << 30
PRE_COPY: Final = "pre-copy"
OPENED: Final = "opened"
"""What a source notes when an attempt is begun there: from then on it is in flight, and prepared before it sends."""
_ROUND_SECONDS: Final = 1.0
_PAGES: Final = 1 << 18


class Pace(msgspec.Struct, frozen=True):
    """Seconds in each phase; in pre-copy between half as long and half as long again, drawn for each attempt."""

    pre_copy: float = 60.0
    others: float = 0.1


class Place(msgspec.Struct, frozen=True):
    """Where the two agents of one host listen."""

    source: str
    dest: str


class FleetDescription(msgspec.Struct, frozen=True):
    """What there is to simulate; memory in bytes, the link in bytes a second."""

    site: str
    pki: str
    hosts: Mapping[str, Place]
    machines: int
    ram_bytes: int
    budget_bytes: int
    link_bytes_per_s: int
    specification: str
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that an attempt went through at its source: a phase, or the term of a driver that it heard of.

    `at` is in seconds since 1970, by the clock of this machine.
    """

    attempt: str
    what: str
    at: float


class Fleet(World):
    """All hosts."""

    def __init__(self, description: FleetDescription, note: Callable[[Happened], None]) -> None:
        """Put as many machines on each host as are asked for."""
        super().__init__()
        self.description: Final = description
        self.note: Final = note
        self.random: Final = random.Random(1)  # noqa: S311 - names and durations, the same in every run
        self.at: Final[dict[str, dict[str, types_pb2.MachineStatus]]] = {host: {} for host in description.hosts}
        self.leaving: Final[dict[str, set[str]]] = {host: set() for host in description.hosts}
        self.arriving: Final[dict[str, set[str]]] = {host: set() for host in description.hosts}
        for host in description.hosts:
            for number in range(description.machines):
                self._create(f"{host}-{number}", host)

    def find(self, name: str, host: str) -> types_pb2.MachineStatus:
        """Return a machine of a host by name or UUID."""
        there = self.at[host]
        found = there.get(name) or next((one for one in there.values() if one.name == name), None)
        if found is None:
            raise InvalidInput("unknown-machine", f"No machine {name} on {host}", "See viaduct machine list")
        return found

    def move(self, machine: str, host: str, epoch: int) -> None:
        """Have another host own a machine from now on."""
        status = self.machines[machine]
        del self.at[status.host][machine]
        status.host, status.epoch = host, epoch
        self.at[host][machine] = status

    def happened(self, attempt: str, what: str) -> None:
        """Write something down."""
        self.note(Happened(attempt, what, time.time()))

    def load(self, host: str) -> types_pb2.HostLoad:
        """Return what a host has to do; an arrival's memory is reserved from its Prepare on."""
        said = self.description
        reserved = said.ram_bytes * len(self.arriving[host])
        used = said.ram_bytes * len(self.at[host])
        return types_pb2.HostLoad(
            machines=len(self.at[host]) + len(self.arriving[host]),
            memory_reserved_bytes=reserved,
            memory_free_bytes=said.budget_bytes - used - reserved,
        )

    def _create(self, name: str, host: str) -> None:
        said, identity = self.description, str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        self.machines[identity] = self.at[host][identity] = types_pb2.MachineStatus(
            machine=identity,
            name=name,
            host=host,
            state="OWNER",
            epoch=1,
            run_state="running",
            ram_bytes=said.ram_bytes,
            guest=types_pb2.GuestReport(jobs_done=10),
            memory=types_pb2.MemorySource(kind="mixture", sha256="00"),
            specification_json=said.specification.replace("NAME", name),
        )


class TimedAttempt(FakeAttempt):
    """One attempt at its source, which goes its way by the clock."""

    def __init__(self, world: Fleet, request: source_pb2.BeginRequest, epoch: int) -> None:
        super().__init__(world, request, epoch)
        self._fleet = world

    async def become(self, phase: str, *, outcome: str = "", state: str = "OUTGOING") -> None:
        """Go to a phase, write that down, and tell the watchers."""
        self._fleet.happened(self.report.key.attempt, phase)
        await super().become(phase, outcome=outcome, state=state)
        if outcome:
            self._fleet.leaving[self.report.source].discard(self.report.key.attempt)
            self._fleet.arriving[self.report.destination].discard(self.report.key.attempt)

    async def run(self) -> None:
        """Go the whole way."""
        report, pace = self.report, self._fleet.description.pace
        await self.become("begun")
        await asyncio.sleep(pace.others)  # a phase takes its time
        await self.become(PRE_COPY)
        await self._send_rounds(pace.pre_copy * (0.5 + self._fleet.random.random()))
        for phase in ("stopping", "verifying", "releasing", "handing-over"):
            await self.become(phase)
            await asyncio.sleep(pace.others)  # so does each of these
        report.downtime.CopyFrom(types_pb2.Downtime(downtime_ms=21, pause_ms=1, last_round_ms=9, resume_ms=11))
        report.verified_by, report.pages_verified, report.total_ms = "witness", _PAGES, 1000 * pace.pre_copy
        self._fleet.move(report.key.machine, report.destination, report.key.epoch)
        await self.become("completed", outcome="completed", state="RETIRED")

    async def _send_rounds(self, seconds: float) -> None:
        """Close a round a second, and know more of the guest with each."""
        loop = asyncio.get_running_loop()
        begun, until = loop.time(), loop.time() + seconds
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, _ROUND_SECONDS))  # so does a round
            report, ms = self.report, 1000 * (loop.time() - begun)
            number = len(report.rounds) + 1
            report.percent = min(99, int(ms / seconds / 10))
            report.rounds.append(_round(number, ms))
            report.rounds_closed = number
            report.wire_bytes += report.rounds[-1].wire_bytes


def _round(number: int, ended_ms: float) -> types_pb2.Round:
    pages = _PAGES // number
    return types_pb2.Round(
        round=number,
        dirty_pages=pages,
        sent_pages=pages,
        zero_pages=pages // 10,
        wire_bytes=4096 * pages,
        ms=1000 * _ROUND_SECONDS,
        dirty_bytes_per_s=20e6,
        wire_bytes_per_s=4096.0 * pages,
        cpu_dirtied_pages=5000,
        dma_dirtied_pages=2500,
        compressed_pages=pages // 2,
        ended_ms=ended_ms,
    )


def written(specification: MachineSpecification) -> str:
    """Return the text of a machine named NAME, as its host tells it."""
    return specification.to_json().decode()
