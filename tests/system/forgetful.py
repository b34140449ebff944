"""A source agent in the test's own process, whose dirty map can be made to miss one page, and an independent look.

The look compares both hosts' memory byte by byte at the release: the source stands still then, and the destination has
loaded everything and does not run. It goes past the agents, through the memory files that the machine processes hold.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import numpy as np

from source_agent.agent import SourceAgent
from source_agent.outgoing_attempt import OutgoingAttempt, StartOrder, Surroundings
from source_agent.source_service import SourceService
from source_agent.terms import Terms
from tests.system.attempts import prepare_request
from tests.system.processes import ram_file
from tests.system.site import OWN_HOST, Site
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.handover.journals import Journals
from vm_migration.handover.record import AttemptKey
from vm_migration.machine.port import Harvest
from vm_migration.machine.software import SoftwareMachine
from vm_migration.machine.software_hypervisor import SoftwareHypervisor
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.process.identity import boot_id

HASHING = 5e9


class WatchedMachine(SoftwareMachine):
    """A machine whose memory is compared with its copy at the release; `differing` are the pages that differ then."""

    def __init__(self, folder: Path, own: Path, copy: Path) -> None:
        super().__init__(folder)
        self.own = own
        self.copy = copy
        self.differing: list[int] | None = None

    async def release(self, epoch: int) -> None:
        self.differing = differing_pages(self.own, self.copy)
        await super().release(epoch)


class ForgetfulMachine(WatchedMachine):
    """Misses the writes to one page that was sent before they came: the bug that verification is there for."""

    missed: int | None = None

    async def harvest(self) -> Harvest:
        arrived = await asyncio.to_thread(arrived_pages, self.copy)
        harvest = await super().harvest()
        while self.missed is None:
            # What a harvest names, and had arrived before the harvest before it, was written after it was sent; this is
            # the first round, in which nothing is sent twice.
            before = await asyncio.to_thread(arrived_pages, self.copy)
            later = await super().harvest()
            only_later = (later.cpu - harvest.dma - later.dma) & arrived
            harvest = Harvest(harvest.cpu | later.cpu, harvest.dma | later.dma, harvest.failure or later.failure)
            if only_later and self.missed is None:  # two looks of one round may be under way
                self.missed = int(only_later.indexes()[-1])  # of the working set, where no content comes back
            arrived = before
        forgotten = DirtyBitmap(harvest.cpu.pages)
        forgotten.set_run(self.missed, 1)
        return Harvest(harvest.cpu - forgotten, harvest.dma - forgotten, harvest.failure)


class UnwitnessedMachine(ForgetfulMachine):
    """The same on a kernel that vouches for nothing."""

    async def report_writes(self) -> DirtyBitmap | None:
        return None


@contextlib.asynccontextmanager
async def own_agent(site: Site) -> AsyncIterator[SourceAgent]:
    """Be the source agent of a host of its own; its destinations are real."""

    async def no_hook() -> None:
        return

    place = site.folder / OWN_HOST
    surroundings = Surroundings(site.identities[OWN_HOST], no_hook, HASHING, boot_id())
    agent = SourceAgent(
        host=OWN_HOST,
        journals=Journals(place / "state" / "journal"),
        hypervisor=SoftwareHypervisor(place / "run"),
        memory_budget=1 << 30,
        hash_bytes_per_s=HASHING,
        surroundings=lambda _attempt, _machine, _epoch: surroundings,
    )
    try:
        yield agent
    finally:
        await agent.stop()


async def prepared(
    site: Site, agent: SourceAgent, machine: str, kind: type[WatchedMachine], verify: str
) -> tuple[OutgoingAttempt, WatchedMachine, StartOrder]:
    """Begin an attempt, with a machine of that kind in the place of its port, and have host-b prepare for it."""
    terms = Terms(downtime_limit_ms=2000, timeout_ms=100_000, force_on_timeout=False, verify=verify)
    attempt = await agent.begin(AttemptKey(machine, str(uuid4()), 0, 1), "host-b", terms)
    assert isinstance(attempt, OutgoingAttempt)
    record, name = attempt.custody.record, agent.name_of(attempt.attempt)
    begun = source_pb2.BeginResponse(
        key=attempt.key(),
        secret_hash=bytes.fromhex(record.secret_hash),
        source=OWN_HOST,
        requirements=(await _requirements(agent, machine)),
    )
    async with site.agents() as agents:
        answer = await agents.prepare("host-b", prepare_request(begun))
    own = ram_file(site.instance(OWN_HOST, machine).vmm.pid, name)
    copy = ram_file(site.instance("host-b", machine).vmm.pid, name)
    port = kind(attempt.custody.place.path, own, copy)
    await attempt.custody.port.close()
    attempt.custody.port = port
    await attempt.custody.attach(record.owned_epoch)
    return attempt, port, StartOrder(answer.control_address, answer.bulk_address, answer.ticket)


async def ended_attempt(attempt: OutgoingAttempt, order: StartOrder) -> OutgoingAttempt:
    """Start an attempt and wait for its end."""
    attempt.start(order)
    while attempt.open:
        await attempt.board.next(1.0)
    return attempt


async def _requirements(agent: SourceAgent, machine: str) -> types_pb2.Requirements:
    request = source_pb2.CheckOutgoingRequest(
        machine=machine,
        destination="host-b",
        policy=types_pb2.Policy(
            downtime_limit_ms=2000,
            timeout_ms=60_000,
            on_timeout=types_pb2.ON_TIMEOUT_CANCEL,
            verify=types_pb2.VERIFY_MODE_AUTO,
        ),
    )
    answer = await SourceService(agent).CheckOutgoing(request, None)  # type: ignore[arg-type]  # it looks at no context
    return answer.requirements


def arrived_pages(copy: Path) -> DirtyBitmap:
    """Return the pages of a memory file, zero in the beginning, that hold something."""
    with copy.open("rb") as file:
        words = np.fromfile(file, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)
    return DirtyBitmap.from_pages(len(words), np.flatnonzero(words.any(axis=1)))


def differing_pages(own: Path, copy: Path) -> list[int]:
    """Return the pages in which two memory files differ."""
    with own.open("rb") as left, copy.open("rb") as right:
        words = [np.fromfile(file, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8) for file in (left, right)]
    differ = np.not_equal(words[0], words[1]).any(axis=1)
    return [int(page) for page in np.flatnonzero(differ)]
