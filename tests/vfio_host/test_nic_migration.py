"""The network card on the move: no packet lost or written twice, and pre-copy figures that mean something."""

import contextlib
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.device_streams import enter, refused, run_from
from tests.vfio_host.nic_bench import Card, working
from vfio_host.devices.flow_table import BLOCK_BYTES, FlowTable
from vfio_host.devices.migration_driver import DataStream
from vfio_host.devices.nic_state import (
    RECORD_BYTES,
    REST_BYTES,
    NicSink,
    NicSource,
    NicState,
    decode_registers,
    device_record,
    encode_registers,
    record,
)
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.nic import Register
from vfio_host.interface.numbers import DeviceState as S
from vfio_host.interface.rings import MAX_RING_ENTRIES

U64 = st.integers(0, (1 << 64) - 1)
MIB = 1 << 20


def drain(stream: DataStream, size: int = MIB) -> bytes:
    parts = []
    with contextlib.suppress(CallRefused):  # ENOMSG: nothing more while the card runs
        while part := stream.read(size):
            parts.append(part)
    return b"".join(parts)


def loaded(data: bytes, source: Card, pieces: int = 1000) -> Card:
    destination = Card(source.memory, now=source.now // 3)
    run_from(destination.migration, data, pieces)
    assert destination.events == 1
    return destination


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=4), st.integers(100, 9000))
def test_a_move_in_the_middle_loses_and_repeats_no_packet(moves: list[tuple[int, bool]], piece: int) -> None:
    card, receiver = working()
    for steps, precopy in moves:
        for _ in range(steps):
            card.step()
        if precopy:
            stream = enter(card.migration, S.PRE_COPY)
            data = drain(stream, piece)
            card.run(receiver, 3)
            data += drain(stream, piece)
            card.step()
            assert card.migration.set_state(S.STOP_COPY) is None
        else:
            stream, data = enter(card.migration, S.STOP_COPY), b""
        at = card.register(Register.SEQUENCE)
        data += drain(stream, piece)
        card.step()
        flows = card.register(Register.FLOWS)
        card = loaded(data, card)
        assert (card.register(Register.SEQUENCE), card.register(Register.FLOWS)) == (at, flows)
    card.run(receiver, 20)
    receiver.collect()
    assert receiver.errors == []
    assert receiver.expected == card.register(Register.SEQUENCE)
    assert len(receiver.packets) == card.register(Register.PACKETS)


def test_precopy_figures_go_down_as_they_are_read_and_dirty_follows_the_traffic() -> None:
    card, receiver = working()
    card.run(receiver, 50)
    stream = enter(card.migration, S.PRE_COPY)
    first = stream.precopy_info()
    blocks = -(-card.register(Register.FLOWS) // 64)
    assert first.initial_bytes == len(device_record()) + blocks * RECORD_BYTES
    assert first.dirty_bytes == 0
    stream.read(100)
    assert stream.precopy_info().initial_bytes == first.initial_bytes - 100
    card.run(receiver, 20)
    later = stream.precopy_info()
    assert later.initial_bytes == first.initial_bytes - 100
    assert later.dirty_bytes > 0
    assert later.dirty_bytes % RECORD_BYTES == 0
    read = len(drain(stream))
    assert read == later.initial_bytes + later.dirty_bytes
    assert stream.precopy_info().initial_bytes == stream.precopy_info().dirty_bytes == 0
    card.run(receiver, 20)
    assert stream.precopy_info().initial_bytes == 0
    assert stream.precopy_info().dirty_bytes > 0
    with refused(errno.EINVAL):
        stream.read(0)


def test_what_is_left_for_the_stop_is_what_changed_last() -> None:
    card, receiver = working(rate=400 * MIB)
    card.run(receiver, 200)
    assert card.migration.state_bytes > 100_000
    stream = enter(card.migration, S.PRE_COPY)
    drain(stream)
    card.run(receiver, 5)
    card.migration.set_state(S.STOP_COPY)
    with refused(errno.EINVAL):
        stream.precopy_info()
    left = drain(stream)
    assert REST_BYTES < len(left) < card.migration.state_bytes // 4
    assert stream.read(10) == b""


def test_the_state_grows_and_is_as_long_as_it_says() -> None:
    card, receiver = working()
    sizes = []
    for _ in range(3):
        sizes.append(card.migration.state_bytes)
        assert len(drain(enter(card.migration, S.STOP_COPY))) == sizes[-1]
        card.migration.set_state(S.RUNNING)
        card.run(receiver, 50)
    assert sizes[0] < sizes[1] < sizes[2]
    assert receiver.errors == []


def test_a_cancelled_precopy_leaves_everything_and_a_new_one_sends_everything() -> None:
    card, receiver = working()
    card.run(receiver, 20)
    drain(enter(card.migration, S.PRE_COPY))
    card.migration.set_state(S.RUNNING)
    card.run(receiver, 20)
    stream = enter(card.migration, S.PRE_COPY)
    assert stream.precopy_info().initial_bytes > card.register(Register.FLOWS) * 64
    data = drain(stream)
    card.migration.set_state(S.STOP_COPY)
    moved = loaded(data + drain(stream), card)
    moved.run(receiver, 20)
    assert receiver.errors == []


def test_p2p_keeps_the_wire_still() -> None:
    card, receiver = working()
    card.run(receiver, 5)
    card.migration.set_state(S.RUNNING_P2P)
    before = card.register(Register.SEQUENCE)
    card.run(receiver, 50)
    assert card.register(Register.SEQUENCE) == before
    card.migration.set_state(S.RUNNING)
    card.step()
    card.run(receiver, 5)
    assert receiver.errors == []
    assert card.register(Register.SEQUENCE) > before


def whole_state() -> bytes:
    card, receiver = working()
    card.run(receiver, 20)
    return drain(enter(card.migration, S.STOP_COPY))


@pytest.mark.parametrize("cut", [1, REST_BYTES, REST_BYTES + RECORD_BYTES, 10_000_000])
def test_partial_state_is_refused_and_the_device_waits_for_the_rest(cut: int) -> None:
    data, card = whole_state(), Card()
    cut = min(cut, len(data))
    stream = enter(card.migration, S.RESUMING)
    stream.write(data[:-cut])
    for target in (S.STOP, S.RUNNING, S.STOP_COPY):
        with refused(errno.EINVAL):
            card.migration.set_state(target)
        assert card.migration.state is S.RESUMING
    assert card.register(Register.SEQUENCE) == 0
    stream.write(data[-cut:])
    with refused(errno.ENOMEM):
        stream.write(b"x")
    card.migration.set_state(S.STOP)
    assert card.register(Register.SEQUENCE) > 0


def test_a_state_that_is_invalid_is_left_by_a_reset_only() -> None:
    card = Card()
    stream = enter(card.migration, S.RESUMING)
    with refused(errno.EINVAL):
        stream.write(b"VIADQAT\0" + bytes(100))
    with refused(errno.EINVAL):
        card.migration.set_state(S.STOP)
    card.migration.reset()
    assert card.migration.state is S.RUNNING
    with refused(errno.ENODEV):
        stream.write(b"")


STATE = whole_state()


@settings(max_examples=300)
@given(st.integers(0, len(STATE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_always_refused(place: int, change: int) -> None:
    data = bytearray(STATE)
    data[place] ^= change
    taken: list[NicState] = []
    sink = NicSink(lambda state, _flows: taken.append(state))
    with pytest.raises(StateInvalid):
        feed(sink, bytes(data))
    assert not taken


def feed(sink: NicSink, data: bytes) -> None:
    sink.write(data)
    sink.finish()


FLOWS = device_record() + record(b"FLOW", 0, bytes(BLOCK_BYTES))
REGISTERS = record(b"REGS", 0, encode_registers(NicState()))


@pytest.mark.parametrize(
    "data",
    [
        REGISTERS + device_record(),
        device_record() * 2,
        device_record() + record(b"FLOW", 128, bytes(BLOCK_BYTES)),
        device_record() + REGISTERS * 2,
        device_record() + REGISTERS + record(b"FLOW", 0, bytes(BLOCK_BYTES)),
        FLOWS + REGISTERS + record(b"END.", 0, bytes(8)),
        device_record() + REGISTERS + record(b"END.", 0, b"\1" + bytes(7)),
        device_record() + record(b"END.", 0, bytes(8)),
        device_record() + REGISTERS + record(b"END.", 0, bytes(8)) + b"x",
    ],
)
def test_records_out_of_place_are_refused(data: bytes) -> None:
    with pytest.raises(StateInvalid):
        feed(NicSink(lambda _state, _flows: None), data)


NUMBERS = ("descriptor_base", "completion_base", "index_base", "rate", "seed", "used", "sequence", "bytes_written")
STATES = st.builds(
    NicState,
    **dict.fromkeys((*NUMBERS, "dropped", "faults"), U64),
    ring_entries=st.integers(1, MAX_RING_ENTRIES),
    balance=st.integers(-(1 << 60), 1 << 60),
    enabled=st.booleans(),
    faulted=st.booleans(),
)


@given(STATES)
def test_what_is_encoded_decodes(state: NicState) -> None:
    assert decode_registers(encode_registers(state)) == state


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 700), max_size=60), max_size=5), st.integers(1, 5000))
def test_any_reading_of_a_growing_table_gives_the_table(rounds: list[list[int]], size: int) -> None:
    table, registers = FlowTable(), NicState(sequence=5)
    for flow in range(100):
        table.count(flow, flow, 1500)
    source, data = NicSource(table, lambda: registers), b""
    for counted in rounds:
        for flow in counted:
            table.count(flow, 7, 1500)
        data += source.read(size)
    source.stop()
    while part := source.read(size):
        data += part
    taken: list[tuple[NicState, FlowTable]] = []
    feed(NicSink(lambda state, flows: taken.append((state, flows))), data)
    ((state, flows),) = taken
    assert state == registers
    assert [flows.block(n) for n in range(flows.blocks)] == [table.block(n) for n in range(table.blocks)]
    assert len(flows) == len(table)
