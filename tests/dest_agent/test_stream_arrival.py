"""A machine that arrives by its own stream: READY only where its process holds everything, stands, and is the same."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from dest_agent.arriving_machine import nothing_before_ready
from dest_agent.stream_arrival import StreamArrival
from tests.dest_agent.arrivals import arriving
from tests.fakes.fake_machine import Held
from tests.fakes.streaming_machine import Said, StreamingMachine
from vm_migration.api.v1.destination_pb2 import FinishRequest, SpanDigests
from vm_migration.errors import AttemptFailed
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone
from vm_migration.transfer.span_digests import span_digests, span_pages
from vmm.memory.ram_block import RamBlock

PAGES = 40
WHOLE: Said = ("completed", "paused")


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    with arriving(tmp_path, State.PREPARED) as found:
        machine = StreamingMachine(found.machine.process, running=False, incoming=True, pages=PAGES, filled=20)
        machine.says = [("active", "inmigrate"), ("completed", "inmigrate"), WHOLE]
        found.machine = found.custody.port = machine
        yield found


def arrival_of(held: Held) -> StreamArrival:
    return StreamArrival(held.custody, "host-a", b"t", path=held.folder / "in.sock", most=1)


def finish(*, filled: int = 20, pages: int = PAGES, verify: bool = True) -> FinishRequest:
    """Return what a source asks whose memory holds something in so many pages."""
    ram = RamBlock.create("leaving", pages * 4096)
    ram.words[:filled] = 7
    digests = span_digests(ram.words, ram.extents()).astype("<u8").tobytes()
    ram.close()
    spans = SpanDigests(pages=pages, span_pages=span_pages(pages), digests=digests)
    return FinishRequest(pause=3, was_running=True, verify=verify, spans=spans)


async def test_a_machine_that_is_whole_and_the_same_is_ready(held: Held) -> None:
    order: list[str] = []

    async def before_ready(record: Record) -> None:
        order.append(f"{record.state} {record.whole}")

    finished = await arrival_of(held).finish_as_asked(finish(), before_ready, 9)
    assert finished.ready
    assert finished.result is not None
    assert finished.result.pages_verified == PAGES
    record = held.custody.record
    assert (record.state, record.pause, record.was_running, order) == (State.READY, 3, True, ["PREPARED True"])
    assert held.machine.calls[-1] == "load"  # its own stops count on from there


async def test_memory_that_differs_is_not_ready_and_names_where(held: Held) -> None:
    finished = await arrival_of(held).finish_as_asked(finish(filled=33), nothing_before_ready, 0)
    assert not finished.ready
    assert finished.result is not None
    assert (finished.result.pages_mismatched, finished.result.mismatched) == (24, (16, 32))
    assert held.custody.record.state is State.PREPARED
    assert "load" not in held.machine.calls


async def test_what_is_not_to_be_compared_is_not(held: Held) -> None:
    finished = await arrival_of(held).finish_as_asked(finish(filled=33, verify=False), nothing_before_ready, 0)
    assert (finished.ready, finished.result) == (True, None)


@pytest.mark.parametrize(
    "said", [("failed", "inmigrate"), ("completed", "running"), ("none", "paused"), ("active", "running")], ids="-".join
)
async def test_a_process_that_took_something_else_in_is_not_whole(held: Held, said: Said) -> None:
    cast("StreamingMachine", held.machine).says = [("active", "inmigrate"), said]
    with pytest.raises(AttemptFailed) as failure:
        await arrival_of(held).finish_as_asked(finish(), nothing_before_ready, 0)
    assert failure.value.code == "stream-failed"
    assert (held.custody.record.state, held.custody.record.whole) == (State.PREPARED, False)


async def test_a_process_that_does_not_answer_is_not_whole(held: Held) -> None:
    cast("StreamingMachine", held.machine).says = [None]
    with pytest.raises(MachineGone):
        await arrival_of(held).finish_as_asked(finish(), nothing_before_ready, 0)
    assert not held.custody.record.whole


async def test_a_process_that_has_ended_is_not_asked(held: Held) -> None:
    held.machine.end()
    with pytest.raises(AttemptFailed) as failure:
        await arrival_of(held).finish_as_asked(finish(), nothing_before_ready, 0)
    assert failure.value.code == "process-gone"


async def test_memory_that_cannot_be_compared_is_not_taken_for_the_same(held: Held) -> None:
    with pytest.raises(AttemptFailed) as failure:
        await arrival_of(held).finish_as_asked(finish(pages=PAGES * 2), nothing_before_ready, 0)
    assert failure.value.code == "not-verifiable"
    cast("StreamingMachine", held.machine).hands_out_ram = False
    with pytest.raises(AttemptFailed) as failure:
        await arrival_of(held).finish_as_asked(finish(), nothing_before_ready, 0)
    assert failure.value.code == "not-verifiable"
    assert held.custody.record.state is State.PREPARED


async def test_a_finish_that_is_repeated_comes_to_the_same(held: Held) -> None:
    arrival = arrival_of(held)
    first = await arrival.finish_as_asked(finish(), nothing_before_ready, 0)
    second = await arrival.finish_as_asked(finish(), nothing_before_ready, 0)
    assert (first.result, first.pause) == (second.result, second.pause)
    assert held.custody.record.pause == 3
