"""Rounds of a guest that writes a little of the same pages again and again: they are sent as what changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from source_agent.destination_link import DestinationLink
from source_agent.rounds import Rounds
from tests.fakes.filled_machine import FilledMachine
from tests.fakes.receiving_destination import ReceivingDestination, receiving
from tests.source_agent.departures import KEY, A, leaving
from vm_migration.handover.states import State
from vm_migration.machine.port import Harvest
from vm_migration.transfer.outgoing import OutgoingStream
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE

PAGES = 256
HOT = np.arange(64, 96)


@dataclass
class BusyMachine(FilledMachine):
    """Writes a line of each hot page before each harvest, and fills page 0 anew with other words or with zeros."""

    written: int = 0

    async def harvest(self) -> Harvest:
        self.written += 1
        words = self.blocks[0].words
        words[HOT, 8 * self.written : 8 * self.written + 8] = self.written
        words[0] = self.written % 2
        return Harvest(DirtyBitmap.from_pages(PAGES, np.append(0, HOT)), DirtyBitmap(PAGES), None)


@asynccontextmanager
async def rounds_to(
    there: ReceivingDestination, folder: Path, compression: str
) -> AsyncIterator[tuple[Rounds, BusyMachine]]:
    with leaving(folder, State.OUTGOING) as held:
        machine = BusyMachine(held.machine.process, pages=PAGES)
        ram = await machine.ram()
        async with receiving(there):
            link = DestinationLink(host="host-b", control=there.address, bulk=there.address, tls=None, attempt=A)
            async with link, link.streams(b"ticket", 1) as bulks:
                lanes = ((OutgoingStream(UUID(A), 0), bulks[0]),)
                yield Rounds(machine, ram, link, lanes, KEY, verify="full", compression=compression), machine


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
async def test_pages_that_change_a_little_are_sent_as_deltas_and_arrive(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("source_agent.dirty_log.FIRST_LOOK_MS", 1e9)  # each look is a write of this machine's
    there = ReceivingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, tmp_path, compression) as (rounds, machine):
        rounds.offered.cut_rounds = rounds.offered.compressed = rounds.offered.deltas = True
        await rounds.begin()
        measured = [await rounds.send_round() for _ in range(4)]
        machine.running = False
        measured.append(await rounds.send_last())
        assert there.image.whole
        assert (there.words == machine.blocks[0].words).all()
        await rounds.send_digests()
        assert there.image.verify().whole
    assert [each.delta_pages for each in measured] == [0, 0, 32, 32, 33]  # page 0 is as it was, at last
    assert all(each.delta_pages <= each.compressed_pages <= each.sent_pages for each in measured)
    assert measured[1].wire_bytes > len(HOT) * PAGE_SIZE / 2
    assert max(each.wire_bytes for each in measured[2:]) < len(HOT) * PAGE_SIZE / 8
    assert rounds.raw_bytes == sum(each.sent_pages for each in measured) * PAGE_SIZE
    # Round 1 remembers, and page 0 is forgotten whenever it is sent as zeros.
    assert (rounds.remembered.looked_up, rounds.remembered.found) == (33 + 32 + 33 + 33, 32 + 32 + 33)


@pytest.mark.parametrize(("compression", "offered"), [("zstd", False), ("none", True), ("auto", True)])
async def test_no_deltas_are_sent_where_they_are_not_offered_or_do_not_pay(
    tmp_path: Path, compression: str, offered: bool
) -> None:
    there = ReceivingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, tmp_path, compression) as (rounds, machine):
        rounds.offered.deltas = offered
        await rounds.begin()
        measured = [await rounds.send_round() for _ in range(3)]
        machine.running = False
        measured.append(await rounds.send_last())
        assert (there.words == machine.blocks[0].words).all()
    assert [each.delta_pages for each in measured] == [0] * 4


async def test_what_was_remembered_is_not_a_base_after_a_round_without_deltas(tmp_path: Path) -> None:
    there = ReceivingDestination(attempt=A, pages=PAGES)
    async with rounds_to(there, tmp_path, "lz4") as (rounds, machine):
        await rounds.begin()
        deltas = []
        for offered in (True, True, True, False, True, True):
            rounds.offered.deltas = offered
            deltas.append((await rounds.send_round()).delta_pages)
        machine.running = False
        await rounds.send_last()
        assert (there.words == machine.blocks[0].words).all()
    assert deltas == [0, 0, len(HOT), 0, 0, len(HOT)]
