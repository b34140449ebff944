"""The end of the last round: what is judged whole stays so, whatever comes while the journal is written."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from dest_agent.arriving_machine import Finished
from dest_agent.incoming_attempt import IncomingAttempt
from tests.dest_agent.arrivals import A
from tests.fakes.fake_machine import Held
from vm_migration.errors import Refused, Unreachable
from vm_migration.handover.custody import Change
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.transfer.outgoing import OutgoingStream
from vm_migration.wire.bitmap_codec import encode_bitmap
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.vfio.device_records import DeviceSum

EVERY = encode_bitmap(DirtyBitmap.full(1))


@pytest.fixture
async def attempt(held: Held) -> AsyncIterator[IncomingAttempt]:
    """Have an arrival of one page, whose round 0 is closed and whole."""
    arrived = IncomingAttempt(held.custody, RamBlock.create("arriving", 4096), "host-a", b"t", streams=1, full=False)
    arrived.open_round(0, EVERY)
    source = RamBlock.create("leaving", 4096)
    for frame in OutgoingStream(UUID(A), 0).round(0, source.words, DirtyBitmap.full(1), digested=True):
        await arrived.take(encode(frame), 0)
    yield arrived
    arrived.let_go_of_ram()


async def finished(attempt: IncomingAttempt) -> Finished:
    return await attempt.finish(pause=1, number=0, state=b"", devices=DeviceSum().total, was_running=True, verify=True)


async def test_no_round_opens_while_it_is_written_that_the_last_one_was_whole(
    held: Held, attempt: IncomingAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, refusals = held.custody.write, []

    async def write(change: Change) -> Record:
        with pytest.raises(Refused) as refused:
            attempt.open_round(1, EVERY)
        refusals.append(refused.value.code)
        return await written(change)

    monkeypatch.setattr(held.custody, "write", write)
    assert (await finished(attempt)).ready
    assert refusals == ["already-whole", "already-whole"]
    assert held.custody.record.state is State.READY


async def test_a_round_opens_where_it_could_not_be_written(
    held: Held, attempt: IncomingAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(change: Change) -> Record:
        raise Unreachable("disk", "The journal's disk does not answer", "Ask again")

    with monkeypatch.context() as patched:
        patched.setattr(held.custody, "write", write)
        with pytest.raises(Unreachable):
            await finished(attempt)
    attempt.open_round(1, EVERY)
    assert attempt.stale_pages == 1
