"""The devices' state of an arrival: passed on in bounded messages, in the machine before an answer speaks of it."""

import os
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest

from dest_agent.incoming_attempt import IncomingAttempt
from tests.dest_agent.arrivals import A
from tests.fakes.fake_machine import Held
from tests.system.processes import mapping_ram
from vm_migration.errors import AttemptFailed, Refused
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream
from vm_migration.wire.bitmap_codec import encode_bitmap
from vm_migration.wire.frame import encode
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.ram_block import RamBlock
from vmm.process.control import MAX_DEVICE_DATA
from vmm.vfio.device_records import MAX_RECORD_BYTES, DeviceRecord, DeviceSum, DeviceTotal, RecordKind

BEGIN = DeviceRecord("gpu0", RecordKind.SETUP)
FULL = DeviceRecord("gpu0", RecordKind.DATA, memoryview(bytes(MAX_RECORD_BYTES)))
END = DeviceRecord("gpu0", RecordKind.END)


@pytest.fixture
async def attempt(held: Held) -> AsyncIterator[IncomingAttempt]:
    arrived = IncomingAttempt(
        held.custody, RamBlock.create("viaduct-ram-arriving", 4096), "host-a", b"t", streams=1, full=False
    )
    arrived.open_round(0, encode_bitmap(DirtyBitmap(1)))
    yield arrived
    arrived.let_go_of_ram()


@pytest.fixture
def outgoing() -> OutgoingRound:
    none = DirtyBitmap(1)
    ram = RamBlock.create("leaving", 4096)
    return OutgoingStream(UUID(A), 0).round(0, ram.words, none)


def writes(held: Held) -> int:
    return held.machine.calls.count("write device data")


def summed(*records: DeviceRecord) -> DeviceTotal:
    adding = DeviceSum()
    for record in records:
        adding.add(record)
    return adding.total


async def test_it_is_passed_on_in_messages_of_a_bounded_size_and_in_its_order(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound
) -> None:
    records = [BEGIN, *[FULL] * 20, END]
    sizes: list[int] = []
    for record in records:
        before = len(held.machine.device_data)
        await attempt.take(encode(outgoing.device(record)), 0)
        sizes.append(sum(len(each.data) for each in held.machine.device_data[before:]))
    assert 1 <= writes(held) <= 4
    assert max(sizes) <= MAX_DEVICE_DATA
    await attempt.take(encode(outgoing.barrier()), 0)
    assert held.machine.device_data == records


@pytest.mark.parametrize("asks", ["heartbeat", "barrier"])
async def test_an_answer_comes_after_all_that_it_speaks_of_is_in_the_machine(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound, asks: str
) -> None:
    await attempt.take(encode(outgoing.device(BEGIN)), 0)
    assert writes(held) == 0
    frame = outgoing.heartbeat() if asks == "heartbeat" else outgoing.barrier()
    assert await attempt.take(encode(frame), 0) is not None
    assert held.machine.device_data == [BEGIN]


async def test_a_machine_that_refuses_it_ends_the_attempt(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound
) -> None:
    held.machine.silent = 1
    await attempt.take(encode(outgoing.device(BEGIN)), 0)
    with pytest.raises(AttemptFailed) as refused:
        await attempt.take(encode(outgoing.barrier()), 0)
    assert refused.value.code == "device-state-refused"


@pytest.mark.parametrize("stated", [(BEGIN, END, END), (END, BEGIN), (BEGIN,), ()])
async def test_what_came_otherwise_than_it_was_sent_is_not_ready(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound, stated: tuple[DeviceRecord, ...]
) -> None:
    for record in (BEGIN, END):
        await attempt.take(encode(outgoing.device(record)), 0)
    await attempt.take(encode(outgoing.barrier()), 0)
    with pytest.raises(Refused) as refused:
        await attempt.finish(pause=1, number=0, state=b"state", devices=summed(*stated), was_running=True, verify=False)
    assert refused.value.code == "device-state-differs"
    assert not held.custody.record.whole
    assert "load" not in held.machine.calls


async def test_what_came_as_it_was_sent_is_loaded_and_ready(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound
) -> None:
    for record in (BEGIN, END):
        await attempt.take(encode(outgoing.device(record)), 0)
    await attempt.take(encode(outgoing.barrier()), 0)
    finished = await attempt.finish(
        pause=1, number=0, state=b"state", devices=summed(BEGIN, END), was_running=True, verify=False
    )
    assert finished.ready
    assert held.custody.record.state is State.READY


def test_what_becomes_of_records_does_not_depend_on_their_copies() -> None:
    copied = msgspec.msgpack.decode(msgspec.msgpack.encode(FULL), type=DeviceRecord)
    assert copied == FULL
    assert summed(copied) == summed(FULL)


async def test_what_its_end_raises_holds_no_memory(
    held: Held, attempt: IncomingAttempt, outgoing: OutgoingRound
) -> None:
    await attempt.take(encode(outgoing.barrier()), 0)
    held.machine.silent = 1
    with pytest.raises(MachineGone) as caught:
        await attempt.finish(pause=1, number=0, state=b"", devices=summed(), was_running=True, verify=False)
    with pytest.raises(Refused) as refused:
        await attempt.finish(pause=1, number=7, state=b"", devices=summed(), was_running=True, verify=False)
    assert mapping_ram(os.getpid(), "arriving")
    attempt.let_go_of_ram()
    assert not mapping_ram(os.getpid(), "arriving")
    assert (caught.value.args, refused.value.code) == (("load was not answered",), "not-whole")
