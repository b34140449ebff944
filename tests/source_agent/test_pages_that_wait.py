"""Rounds of a guest that writes some pages all the time: those wait for the end, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
import pytest

from source_agent.destination_link import DestinationLink
from source_agent.dirty_log import DirtyLog
from source_agent.rounds import Rounds
from tests.fakes.filled_machine import FilledMachine
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from tests.source_agent.departures import KEY, A, leaving
from vm_migration.errors import AttemptFailed
from vm_migration.handover.states import State
from vm_migration.machine.port import Harvest, MachinePort
from vm_migration.transfer.hot_pages import FIRST_LOOK_MS
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.transfer.unsent import UnsentSet
from vmm.memory.dirty_bitmap import DirtyBitmap

PAGES = 256
HOT = np.arange(64, 80)
COLD = np.arange(100, 180)


@dataclass
class BusyMachine(FilledMachine):
    """Writes the hot pages before each harvest, and some others in turn; the witness sees what was written."""

    written: int = 0
    seen: DirtyBitmap = field(default_factory=lambda: DirtyBitmap(PAGES))

    async def harvest(self) -> Harvest:
        self.written += 1
        others = COLD[self.written % 8 :: 8]
        pages = np.append(HOT, others)
        self.blocks[0].words[pages, self.written] = self.written
        found = DirtyBitmap.from_pages(PAGES, pages)
        self.seen.merge(found)
        return Harvest(found, DirtyBitmap.from_pages(PAGES, HOT), None)

    async def report_writes(self) -> DirtyBitmap | None:
        seen, self.seen = self.seen, DirtyBitmap(PAGES)
        return seen


@asynccontextmanager
async def rounds_to(there: ReceivingDestination, folder: Path) -> AsyncIterator[tuple[Rounds, BusyMachine]]:
    with leaving(folder, State.OUTGOING) as held:
        machine = BusyMachine(held.machine.process, pages=PAGES)
        ram = await machine.ram()
        async with receiving(there):
            link = DestinationLink(host="host-b", control=there.address, bulk=there.address, tls=None, attempt=A)
            async with link, link.streams(b"ticket", 1) as bulks:
                lanes = ((OutgoingStream(UUID(A), 0), bulks[0]),)
                yield Rounds(machine, ram, link, lanes, KEY, verify="auto"), machine


async def test_pages_that_are_dirty_in_every_round_wait_for_the_end(tmp_path: Path) -> None:
    there = ReceivingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, tmp_path) as (rounds, machine):
        rounds.offered.cut_rounds = True
        await rounds.begin()
        measured = [await rounds.send_round() for _ in range(6)]
        machine.running = False
        measured.append(await rounds.send_last())
        assert (there.words == machine.blocks[0].words).all()
        await rounds.send_digests()
        assert there.image.verify().whole
    assert [bool(each.held_back_pages) for each in measured] == [False, False, True, True, True, True, False]
    for each in measured[2:-1]:
        assert each.held_back_pages == min(len(HOT), each.dirty_pages // 2)
        assert each.sent_pages + each.held_back_pages == each.dirty_pages
        assert each.unsent_pages == 0, "what waits is dirty again, and nothing beside that"
    assert all(each.dma_dirtied_pages == len(HOT) for each in measured[:-1])


async def test_nothing_waits_where_the_destination_takes_no_cut_round(tmp_path: Path) -> None:
    there = ReceivingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, tmp_path) as (rounds, machine):
        await rounds.begin()
        measured = [await rounds.send_round() for _ in range(4)]
        machine.running = False
        measured.append(await rounds.send_last())
        assert (there.words == machine.blocks[0].words).all()
    assert all(each.sent_pages == each.dirty_pages for each in measured)


# Looks within a round, in virtual time.


@dataclass
class Logged:
    """A machine of which a page more is dirty at each harvest, which takes a while."""

    takes: float
    grows: int = 100
    failure: str | None = None
    asked: list[float] = field(default_factory=list)
    told: int = 0

    async def harvest(self) -> Harvest:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        first, self.told = self.told, min(PAGES * 64, self.told + self.grows)
        found = DirtyBitmap.from_pages(PAGES * 64, np.arange(first, self.told))
        return Harvest(found, DirtyBitmap(PAGES * 64), self.failure)


def watched(machine: Logged, seconds: float, *, allowed: bool = True) -> tuple[int, int, float]:
    """Watch a round of so many seconds; return the pages unsent and dirtied by its end, and when that was."""

    async def scenario(_loop: VirtualLoop) -> tuple[int, int, float]:
        began = asyncio.get_running_loop().time()
        unsent = UnsentSet(PAGES * 64)
        log = DirtyLog(cast("MachinePort", machine), unsent, PAGES * 64)
        waiting = log.opened(DirtyBitmap.full(PAGES * 64))
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        await log.watch(waiting, over, lambda: allowed)
        ended = asyncio.get_running_loop().time() - began
        machine.asked[:] = [at - began for at in machine.asked]
        return unsent.dirty_pages, log.closed().cpu.count(), ended

    return in_virtual_time(scenario)


def test_what_looks_found_is_unsent_and_was_dirtied_in_the_round() -> None:
    machine = Logged(0.001)
    unsent, dirtied, ended = watched(machine, 1.0)
    assert unsent == dirtied == machine.told > 1000
    assert ended == pytest.approx(1.0, abs=0.01)
    assert machine.asked[0] == pytest.approx(FIRST_LOOK_MS / 1000, abs=0.001)


def test_a_look_under_way_when_the_round_ends_is_waited_for() -> None:
    machine = Logged(0.5)
    unsent, _, ended = watched(machine, 0.2)
    assert (unsent, len(machine.asked)) == (100, 1)
    assert ended == pytest.approx(0.55, abs=0.01)


def test_looks_take_a_small_share_of_the_time_however_slow_they_are() -> None:
    for takes in (0.001, 0.02, 0.3):
        machine = Logged(takes)
        _, _, ended = watched(machine, 100.0)
        assert len(machine.asked) * takes <= 0.06 * ended


def test_a_guest_that_writes_next_to_nothing_is_looked_at_seldom() -> None:
    idle, busy = Logged(0.0, grows=1), Logged(0.0)
    watched(idle, 7.0)
    watched(busy, 7.0)
    assert len(idle.asked) < 10
    assert len(busy.asked) > 100


def test_nobody_looks_where_nothing_may_wait() -> None:
    machine = Logged(0.001)
    watched(machine, 1.0, allowed=False)
    assert machine.asked == []


def test_a_dirty_map_that_may_miss_pages_ends_the_attempt_in_the_middle_of_a_round() -> None:
    with pytest.raises(AttemptFailed, match="lost count"):
        watched(Logged(0.001, failure="lost count"), 1.0)
