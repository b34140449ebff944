"""The network card: packets at their rate, in order, really in memory; drops that are counted; guests that lie."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.nic_bench import (
    BUFFER,
    BUFFERS,
    COMPLETIONS,
    DESCRIPTORS,
    ENTRIES,
    INDEX,
    MEMORY_BYTES,
    MILLISECOND,
    RATE,
    SEED,
    Card,
    Receiver,
    working,
)
from vfio_host.devices.hardware import NEVER
from vfio_host.devices.nic import BATCH
from vfio_host.dma_log import DmaLog
from vfio_host.errors import CallRefused
from vfio_host.interface.bitmaps import dense
from vfio_host.interface.nic import COMPLETION, DESCRIPTOR, MAX_FLOWS, Register, Status
from vfio_host.interface.rings import MAX_RING_ENTRIES
from vfio_host.interface.wire import HEADER, MAX_PACKET, MIN_PACKET, flow_of, length_of, packet

U64 = st.integers(0, (1 << 64) - 1)


@given(U64, U64)
def test_a_packet_says_what_it_is_and_its_check_holds(seed: int, sequence: int) -> None:
    data = packet(seed, sequence)
    assert HEADER.unpack(data[: HEADER.size]) == (flow_of(seed, sequence), sequence, seed, len(data), 0)
    assert MIN_PACKET <= len(data) == length_of(seed, sequence) <= MAX_PACKET
    assert zlib.crc32(data[:-4]).to_bytes(4, "little") == data[-4:]


def test_traffic_has_a_hot_part_that_moves_on() -> None:
    flows = [flow_of(SEED, sequence) for sequence in range(8 * 8192)]
    assert len(set(flows)) == 8192
    assert len(set(flows[8000:8256])) <= 256 // 8 + 32
    assert flow_of(SEED, 8 * 8192) == flow_of(SEED, 0)


def test_packets_come_at_the_rate_in_order_and_lie_in_memory() -> None:
    card, receiver = working()
    card.run(receiver, 200)
    assert receiver.errors == []
    assert receiver.packets == list(range(len(receiver.packets)))
    assert card.register(Register.DROPPED) == 0
    written = sum(length_of(SEED, sequence) for sequence in receiver.packets)
    assert card.register(Register.BYTES_WRITTEN) == written == pytest.approx(RATE / 5, rel=0.02)
    assert card.register(Register.PACKETS) == card.register(Register.SEQUENCE) == len(receiver.packets)
    assert 0 < card.events <= 201 * 2


def test_a_slow_wire_is_exact_and_its_packets_wait_for_their_moment() -> None:
    card, receiver = working(rate=2000)
    card.run(receiver, 10_000)
    assert card.register(Register.BYTES_WRITTEN) == pytest.approx(20_000, abs=MAX_PACKET)
    due = card.device.due_ns
    card.device.step(due - 1)
    before = card.register(Register.SEQUENCE)
    card.device.step(due)
    assert card.register(Register.SEQUENCE) == before + 1


def test_without_a_rate_nothing_is_ever_due_and_a_written_rate_holds_at_once() -> None:
    card, receiver = working()
    card.run(receiver, 10)
    card.device.write_register(Register.RATE, 0)
    assert card.device.due_ns == NEVER
    before = card.register(Register.SEQUENCE)
    card.device.step(card.now + 1000 * MILLISECOND)
    assert card.register(Register.SEQUENCE) == before
    card.now += 1000 * MILLISECOND
    card.device.write_register(Register.RATE, RATE)
    card.run(receiver, 10)
    assert receiver.errors == []
    assert card.register(Register.SEQUENCE) - before < 2 * 10 * RATE // 1000 // MIN_PACKET


def test_a_card_that_nobody_stepped_catches_up_20_ms_and_no_more() -> None:
    card, receiver = working()
    card.run(receiver, 5)
    before = card.register(Register.BYTES_WRITTEN)
    card.now += 60_000 * MILLISECOND
    while card.device.due_ns <= card.now:
        card.device.step(card.now)
        receiver.post(receiver.collect())
    assert card.register(Register.BYTES_WRITTEN) - before <= RATE // 50 + MAX_PACKET


def test_packets_without_a_buffer_are_dropped_and_counted() -> None:
    card, receiver = working()
    for _ in range(20):
        card.now += 5 * MILLISECOND
        while card.device.due_ns <= card.now:
            card.device.step(card.now)
        receiver.post(receiver.collect())
    assert receiver.errors == []
    assert receiver.dropped > 0
    assert card.register(Register.DROPPED) >= receiver.dropped
    assert card.register(Register.SEQUENCE) == card.register(Register.PACKETS) + card.register(Register.DROPPED)


def test_completions_that_nobody_reads_keep_packets_out() -> None:
    card, receiver = working()
    card.step()
    for _ in range(50):
        card.now += 5 * MILLISECOND
        card.step()
    receiver.collect()
    assert len(receiver.packets) == ENTRIES
    assert receiver.errors == []


@pytest.mark.parametrize(
    ("address", "room", "status"),
    [(1 << 60, BUFFER, Status.FAULT), (MEMORY_BYTES - 1000, BUFFER, Status.FAULT), (BUFFERS, 1499, Status.TOO_SMALL)],
)
def test_a_bad_buffer_is_answered_and_the_next_packet_goes_on(address: int, room: int, status: Status) -> None:
    card, receiver = working()
    before = bytes(card.memory.view[MEMORY_BYTES - 1000 :])
    receiver.put(DESCRIPTORS + DESCRIPTOR.size, DESCRIPTOR.pack(address, room, 1))
    card.step()
    card.step()
    answers = [
        COMPLETION.unpack(card.memory.view[place : place + COMPLETION.size])
        for place in range(COMPLETIONS, COMPLETIONS + 3 * COMPLETION.size, COMPLETION.size)
    ]
    assert [(a[0], a[2], a[5]) for a in answers] == [(0, 0, Status.OK), (1, 1, status), (2, 2, Status.OK)]
    assert bytes(card.memory.view[MEMORY_BYTES - 1000 :]) == before
    assert card.register(Register.FAULTS) == (status is Status.FAULT)


def test_a_ring_that_is_unmapped_drops_until_it_is_mapped_again() -> None:
    card, receiver = working()
    card.run(receiver, 10)
    card.table.unmap(0, MEMORY_BYTES)
    card.run(receiver, 10)
    assert card.register(Register.FAULTS) == 1
    assert card.register(Register.DROPPED) > 0
    card.table.map(0, MEMORY_BYTES, card.memory, 0)
    card.run(receiver, 10)
    assert receiver.errors == []
    assert receiver.dropped == card.register(Register.DROPPED)
    assert receiver.expected == card.register(Register.SEQUENCE)


def test_completions_that_cannot_be_written_count_for_nothing() -> None:
    card = Card()
    receiver = Receiver(card.memory.view)
    card.enable()
    receiver.post(ENTRIES)
    card.table.unmap(0, MEMORY_BYTES)
    card.table.map(0, COMPLETIONS, card.memory, 0)
    card.table.map(COMPLETIONS, 0x1000, card.memory, COMPLETIONS, writable=False)
    card.table.map(BUFFERS, MEMORY_BYTES - BUFFERS, card.memory, BUFFERS)
    card.step()
    card.step()
    assert (card.events, card.register(Register.PACKETS), card.register(Register.FLOWS)) == (0, 0, 0)
    card.table.unmap(COMPLETIONS, 0x1000)
    card.table.map(COMPLETIONS, 0x1000, card.memory, COMPLETIONS)
    card.run(receiver, 10)
    assert receiver.errors == []
    assert receiver.dropped == card.register(Register.DROPPED) > 0


@pytest.mark.parametrize(
    ("tail", "completion_head"), [(ENTRIES + 1, 0), ((1 << 64) - 1, 0), (0, 1), (3, (1 << 64) - 1)]
)
def test_a_senseless_index_page_disables_the_ring(tail: int, completion_head: int) -> None:
    card = Card()
    card.enable()
    card.memory.view[0:8] = tail.to_bytes(8, "little")
    card.memory.view[24:32] = completion_head.to_bytes(8, "little")
    card.step()
    assert card.device.due_ns == NEVER
    assert (card.register(Register.STATUS), card.register(Register.FAULTS)) == (2, 1)
    card.memory.view[0:32] = bytes(32)
    card.device.write_register(Register.CONTROL, 1)
    assert card.register(Register.STATUS) == 1


@pytest.mark.parametrize("entries", [0, MAX_RING_ENTRIES + 1, (1 << 64) - 1])
def test_a_ring_of_no_size_is_not_enabled(entries: int) -> None:
    card = Card()
    card.device.write_register(Register.RING_ENTRIES, entries)
    card.device.write_register(Register.RATE, RATE)
    card.device.write_register(Register.CONTROL, 1)
    assert (card.register(Register.STATUS), card.register(Register.CONTROL)) == (2, 0)
    assert card.device.due_ns == NEVER


def test_settings_hold_while_the_device_is_enabled_and_counters_are_read_only() -> None:
    card, _ = working()
    held = (Register.INDEX_BASE, Register.DESCRIPTOR_BASE, Register.COMPLETION_BASE, Register.RING_ENTRIES)
    for register in (*held, Register.SEED, *list(Register)[Register.SEQUENCE // 8 :]):
        before = card.register(register)
        card.device.write_register(register, 12345)
        assert card.register(register) == before
    for access in (lambda: card.device.read_register(0x70), lambda: card.device.write_register(3, 0)):
        with pytest.raises(CallRefused, match="EINVAL"):
            access()


def test_the_wire_goes_on_over_a_disable_and_begins_anew_after_a_reset() -> None:
    card, receiver = working()
    card.run(receiver, 20)
    card.device.write_register(Register.CONTROL, 0)
    card.memory.view[0:32] = bytes(32)
    again = Receiver(card.memory.view, expected=card.register(Register.SEQUENCE))
    card.enable()
    again.post(ENTRIES)
    card.run(again, 20)
    assert again.errors == []
    assert again.packets[0] == len(receiver.packets)
    card.device.reset()
    assert [card.register(register) for register in Register] == [0] * len(Register)


def test_flows_are_learned_up_to_the_bound() -> None:
    card, receiver = working(rate=200 << 20)
    card.run(receiver, 100)
    assert receiver.errors == []
    assert card.register(Register.FLOWS) == len({flow_of(SEED, sequence) for sequence in receiver.packets}) > 1000
    assert card.register(Register.FLOWS) <= MAX_FLOWS


ACTIONS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(Register), U64 | st.sampled_from([0, 1, ENTRIES, RATE, 1 << 63])),
    st.tuples(st.just("memory"), st.integers(0, 0x800), U64),
    st.tuples(st.just("unmap"), st.integers(0, 31), st.integers(1, 32)),
    st.tuples(st.just("map"), st.integers(0, 31), st.integers(1, 32)),
    st.tuples(st.just("time"), st.just(0), st.integers(0, 10**12)),
    st.tuples(st.just("ring"), st.just(0), st.just(0)),
)


class HostileGuest:
    """A card with a log over a memory in 32 parts, which actions map, unmap and fill."""

    def __init__(self) -> None:
        self.log = DmaLog(width=48)
        self.log.start(4096, [(0, MEMORY_BYTES)])
        self.card = Card(log=self.log)
        self.card.enable()
        Receiver(self.card.memory.view).post(ENTRIES)
        self.card.table.unmap(0, MEMORY_BYTES)
        self.mapped: set[int] = set()
        self.map(range(32))

    def act(self, kind: str, place: int, value: int) -> None:
        parts = range(place, min(32, place + value))
        match kind:
            case "register":
                self.card.device.write_register(place, value)
            case "memory":
                self.card.memory.view[place * 8 : place * 8 + 8] = value.to_bytes(8, "little")
            case "time":
                self.card.now += value
            case "ring":
                self.card.device.ring()
            case "map":
                self.map(parts)
            case _:
                for part in self.mapped.intersection(parts):
                    self.card.table.unmap(part << 16, 1 << 16)
                self.mapped.difference_update(parts)

    def map(self, parts: range) -> None:
        for part in set(parts) - self.mapped:
            self.card.table.map(part << 16, 1 << 16, self.card.memory, part << 16)
        self.mapped.update(parts)

    def logged(self) -> set[int]:
        bits = int.from_bytes(dense(self.log.report(0, MEMORY_BYTES, 4096)), "little")
        return {page for page in range(MEMORY_BYTES >> 12) if bits >> page & 1}


def changed_pages(before: bytes, after: memoryview) -> set[int]:
    starts = range(0, len(before), 4096)
    return {start >> 12 for start in starts if before[start : start + 4096] != after[start : start + 4096]}


@settings(max_examples=80)
@given(st.lists(ACTIONS, max_size=20))
def test_a_hostile_guest_never_makes_a_step_raise_or_work_without_bound(actions: list[tuple[str, int, int]]) -> None:
    guest = HostileGuest()
    for kind, place, value in actions:
        guest.act(kind, place, value)
        before, done = bytes(guest.card.memory.view), guest.card.register(Register.SEQUENCE)
        guest.card.device.step(guest.card.now)
        assert guest.card.register(Register.SEQUENCE) - done <= BATCH
        assert changed_pages(before, guest.card.memory.view) <= guest.logged()


def test_the_log_marks_exactly_what_was_written_and_outlives_the_mapping() -> None:
    log = DmaLog(width=48)
    log.start(4096, [(0, MEMORY_BYTES)])
    card = Card(log=log)
    receiver = Receiver(card.memory.view)
    card.enable()
    receiver.post(4)
    for _ in range(3):
        card.now += 5 * MILLISECOND
        card.step()
    receiver.collect()
    assert len(receiver.packets) == 4
    card.table.unmap(0, MEMORY_BYTES)
    pages = {INDEX >> 12, COMPLETIONS >> 12, BUFFERS >> 12, (BUFFERS >> 12) + 1}
    assert int.from_bytes(dense(log.report(0, MEMORY_BYTES, 4096)), "little") == sum(1 << page for page in pages)
    card.step()
    assert int.from_bytes(dense(log.report(0, MEMORY_BYTES, 4096)), "little") == 0
