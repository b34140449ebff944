"""The accelerator's state: canonical bytes, and jobs that are neither lost nor repeated by a move in their middle."""

import errno
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.device_streams import enter, read_all, refused, run_from
from tests.vfio_host.ring_driver import INPUTS, MEMORY_BYTES, OUTPUTS, REGISTERS, RingDriver, compressible, packed
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.migration_driver import MigrationDriver
from vfio_host.devices.qat import Qat
from vfio_host.devices.qat_state import SETUP_BYTES, decode, encode
from vfio_host.devices.ring_state import RingState
from vfio_host.errors import StateInvalid
from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.numbers import DeviceState as S
from vfio_host.interface.qat import IN_FLIGHT, REQUEST, STATE_BYTES, Register, Status
from vfio_host.interface.rings import MAX_RING_ENTRIES
from vfio_host.io_page_table import IoPageTable
from vfio_host.memory_file import MemoryFile

U64 = st.integers(0, (1 << 64) - 1)


class Side:
    """One host's device over a memory that both hosts' devices see in turn."""

    def __init__(self, memory: MemoryFile) -> None:
        self.table = IoPageTable()
        self.table.map(0, MEMORY_BYTES, memory, 0)
        self.events = 0
        self.device = Qat(self.count)
        self.device.attach(self.table)
        self.migration = MigrationDriver(self.device)

    def count(self) -> None:
        self.events += 1

    def step(self) -> bool:
        busy = self.migration.running and self.device.has_work
        if busy:
            self.device.step(0)
        return busy


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), max_size=5), st.booleans())
def test_a_move_in_the_middle_loses_and_repeats_no_job(moves: list[int], precopy: bool) -> None:
    memory = shared_memory(MEMORY_BYTES)
    driver, side = RingDriver(memory.view), Side(memory)
    for register, value in REGISTERS:
        side.device.write_register(register, value)
    plain = compressible(150_000)
    length = driver.put(INPUTS, packed(plain))
    for job in range(30):
        driver.request(job, length=length, capacity=150_000, destination=OUTPUTS + job * 150_000, cookie=job * 3)
    driver.publish()
    side.device.ring()
    for steps in moves:
        for _ in range(steps):
            side.step()
        side = move(side, Side(memory), precopy=precopy)
    while side.step():
        pass
    answers = driver.collect()
    assert [a.job for a in answers] == list(range(30))
    assert {a.status for a in answers} == {Status.OK}
    assert {a.crc for a in answers} == {zlib.crc32(plain)}
    assert side.device.read_register(Register.JOBS_DONE) == 30
    assert side.device.read_register(Register.BYTES_WRITTEN) == 30 * len(plain)
    for job in range(30):
        assert memory.view[OUTPUTS + job * 150_000 : OUTPUTS + (job + 1) * 150_000] == plain


def move(source: Side, destination: Side, *, precopy: bool) -> Side:
    if precopy:
        stream = enter(source.migration, S.PRE_COPY)
        block = stream.read(1 << 20)
        source.step()
        assert source.migration.set_state(S.STOP_COPY) is None
        block += read_all(stream)
    else:
        block = read_all(enter(source.migration, S.STOP_COPY))
    assert len(block) == STATE_BYTES
    assert not source.step()
    run_from(destination.migration, block, 1000)
    assert destination.events == 1
    return destination


def test_precopy_gives_the_setup_part_then_enomsg_then_the_rest() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    stream = enter(side.migration, S.PRE_COPY)
    assert stream.precopy_info() == PrecopyInfo(initial_bytes=SETUP_BYTES, dirty_bytes=0)
    assert len(stream.read(10)) == 10
    assert stream.precopy_info() == PrecopyInfo(initial_bytes=SETUP_BYTES - 10, dirty_bytes=0)
    assert len(stream.read(1 << 20)) == SETUP_BYTES - 10
    with refused(errno.ENOMSG):
        stream.read(1)
    assert side.migration.set_state(S.PRE_COPY_P2P) is None
    assert stream.precopy_info() == PrecopyInfo(initial_bytes=0, dirty_bytes=0)
    assert side.migration.set_state(S.STOP_COPY) is None
    with refused(errno.EINVAL):
        stream.precopy_info()
    assert len(read_all(stream)) == STATE_BYTES - SETUP_BYTES
    assert stream.read(10) == b""
    side.migration.set_state(S.RUNNING)
    with refused(errno.ENODEV):
        stream.read(1)


def test_a_cancelled_precopy_begins_a_new_stream_next_time() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    first = enter(side.migration, S.PRE_COPY)
    side.migration.set_state(S.RUNNING)
    with refused(errno.ENODEV):
        first.precopy_info()
    assert enter(side.migration, S.PRE_COPY) is not first


def test_partial_state_is_einval_and_too_much_is_enomem() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    block = encode(RingState(jobs_done=5))
    stream = enter(side.migration, S.RESUMING)
    stream.write(block[:-1])
    with refused(errno.EINVAL):
        side.migration.set_state(S.STOP)
    assert side.migration.state is S.RESUMING
    with refused(errno.ENOMEM):
        stream.write(block[:2])
    stream.write(block[-1:])
    side.migration.set_state(S.STOP)
    assert side.device.read_register(Register.JOBS_DONE) == 5
    with refused(errno.ENODEV):
        stream.write(b"x")


def test_another_devices_setup_part_is_refused_when_it_is_written() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    stream = enter(side.migration, S.RESUMING)
    with refused(errno.EINVAL):
        stream.write(b"VIADNIC\0")
    assert stream.write(encode(RingState())) == STATE_BYTES


def test_streams_go_one_way() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    saving = enter(side.migration, S.STOP_COPY)
    with refused(errno.EBADF):
        saving.write(b"x")
    loading = enter(side.migration, S.RESUMING)
    with refused(errno.EBADF):
        loading.read(1)
    with refused(errno.ENOTTY):
        loading.precopy_info()


def test_p2p_suspends_the_device_and_reset_empties_it() -> None:
    memory = shared_memory(MEMORY_BYTES)
    side, driver = Side(memory), RingDriver(memory.view)
    for register, value in REGISTERS:
        side.device.write_register(register, value)
    driver.request(0, length=driver.put(INPUTS, packed(b"hello")))
    driver.publish()
    side.device.ring()
    side.migration.set_state(S.RUNNING_P2P)
    assert not side.step()
    side.migration.set_state(S.PRE_COPY)
    assert side.step()
    side.migration.set_state(S.STOP)
    side.migration.reset()
    assert side.migration.state is S.RUNNING
    assert [side.device.read_register(register) for register in Register] == [0] * len(Register)


def test_a_refused_target_changes_nothing() -> None:
    side = Side(shared_memory(MEMORY_BYTES))
    side.migration.set_state(S.STOP_COPY)
    for target in (S.PRE_COPY, S.PRE_COPY_P2P, S.ERROR):
        with refused(errno.EINVAL):
            side.migration.set_state(target)
    assert side.migration.state is S.STOP_COPY


@st.composite
def states(draw: st.DrawFn) -> RingState:
    jobs = draw(st.lists(st.binary(min_size=REQUEST.size, max_size=REQUEST.size), max_size=IN_FLIGHT))
    done = draw(st.integers(0, (1 << 64) - 1 - IN_FLIGHT))
    enabled = draw(st.booleans())
    return RingState(
        request_base=draw(U64),
        completion_base=draw(U64),
        index_base=draw(U64),
        ring_entries=draw(st.integers(1, MAX_RING_ENTRIES)) if enabled else draw(U64),
        enabled=enabled,
        faulted=draw(st.booleans()),
        request_head=done + len(jobs),
        completion_tail=done,
        jobs_done=draw(U64),
        bytes_written=draw(U64),
        faults=draw(U64),
        in_flight=jobs,
    )


@given(states())
def test_what_is_encoded_decodes(state: RingState) -> None:
    block = encode(state)
    assert len(block) == STATE_BYTES
    assert decode(block) == state


@settings(max_examples=300)
@given(states(), st.integers(0, STATE_BYTES - 1), st.integers(1, 255), st.booleans())
def test_a_changed_byte_is_refused_or_canonical(state: RingState, place: int, change: int, mend: bool) -> None:
    block = bytearray(encode(state))
    block[place] ^= change
    if mend:
        block[-4:] = zlib.crc32(block[SETUP_BYTES:-4]).to_bytes(4, "little")
    try:
        decoded = decode(bytes(block))
    except StateInvalid:
        return
    assert encode(decoded) == bytes(block)


@given(st.binary(max_size=STATE_BYTES + 8))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StateInvalid):
        decode(data)
