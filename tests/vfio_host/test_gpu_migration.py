"""The graphics processor on the move: all of its memory, streamed, and jobs that go on in their middle."""

import errno
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.device_streams import enter, read_all, refused, run_from
from tests.vfio_host.gpu_bench import LOCAL, Jobs, Processor
from tests.vfio_host.ring_driver import OUTPUTS
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.gpu import blank
from vfio_host.devices.gpu_state import HEADER_BYTES, GpuState, decode_header, encode_header, state_size
from vfio_host.devices.hardware import MAX_READ
from vfio_host.devices.ring_state import RingState
from vfio_host.errors import CallRefused, StateInvalid
from vfio_host.interface.gpu import MAX_LENGTH
from vfio_host.interface.numbers import DeviceState as S
from vfio_host.interface.qat import REQUEST, Register

MIB = 1 << 20


def move(source: Processor, piece: int = MIB) -> Processor:
    data = read_all(enter(source.migration, S.STOP_COPY), piece)
    assert len(data) == source.migration.state_bytes == state_size(LOCAL)
    destination = Processor(source.memory)
    run_from(destination.migration, data, piece)
    assert destination.events == 1
    return destination


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(3000, 1 << 20))
def test_a_move_in_the_middle_of_a_job_loses_and_repeats_nothing(moves: list[int], piece: int) -> None:
    processor = Processor()
    processor.enable()
    jobs = Jobs(processor.memory.view)
    for job in range(4):
        jobs.accumulate(local=job % 2 * 8, length=MAX_LENGTH - job * 8, destination=OUTPUTS + job * MAX_LENGTH)
    jobs.publish()
    processor.device.ring()
    for steps in moves:
        for _ in range(steps):
            processor.step()
        processor = move(processor, piece)
    while processor.step():
        pass
    assert jobs.check() == 4
    for job, expected in enumerate(jobs.expected):
        start = OUTPUTS + job * MAX_LENGTH
        assert processor.memory.view[start : start + len(expected)] == expected
    assert processor.device.read_register(Register.BYTES_WRITTEN) == sum(map(len, jobs.expected))


def test_local_memory_moves_and_results_depend_on_it() -> None:
    processor = Processor()
    processor.enable()
    jobs = Jobs(processor.memory.view)
    for local in range(0, LOCAL, MAX_LENGTH):
        jobs.accumulate(local=local, length=MAX_LENGTH)
        processor.run(jobs)
    moved = move(processor)
    for local in range(0, LOCAL, MAX_LENGTH):
        jobs.accumulate(local=local, length=MAX_LENGTH)
        moved.run(jobs)
    assert jobs.check() == 8


def test_there_is_no_precopy() -> None:
    processor = Processor()
    for target in (S.PRE_COPY, S.PRE_COPY_P2P):
        with refused(errno.EINVAL):
            processor.migration.set_state(target)
    assert processor.migration.state is S.RUNNING


def test_reading_and_writing_make_no_copy_of_local_memory() -> None:
    size = 32 * MIB
    memory = shared_memory(8 * MIB)
    source, destination = Processor(memory, size), Processor(memory, size)
    stream, loading = enter(source.migration, S.STOP_COPY), enter(destination.migration, S.RESUMING)
    tracemalloc.start()
    try:
        while data := stream.read(1 << 40):
            assert len(data) <= MAX_READ
            loading.write(data)
        destination.migration.set_state(S.STOP)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * MIB


def state_of_a_busy_device() -> bytes:
    processor = Processor()
    processor.enable()
    jobs = Jobs(processor.memory.view)
    jobs.accumulate(local=0, length=MAX_LENGTH)
    jobs.publish()
    processor.device.ring()
    processor.step()
    processor.step()
    return read_all(enter(processor.migration, S.STOP_COPY))


STATE = state_of_a_busy_device()


@pytest.mark.parametrize("cut", [1, 4, 5, LOCAL, LOCAL + 5, len(STATE)])
def test_partial_state_is_refused_and_the_device_waits_for_the_rest(cut: int) -> None:
    processor = Processor()
    stream = enter(processor.migration, S.RESUMING)
    if STATE[:-cut]:
        stream.write(STATE[:-cut])
    for target in (S.STOP, S.RUNNING):
        with refused(errno.EINVAL):
            processor.migration.set_state(target)
        assert processor.migration.state is S.RESUMING
    assert processor.device.read_register(Register.CONTROL) == 0
    stream.write(STATE[-cut:])
    with refused(errno.ENOMEM):
        stream.write(b"x")
    processor.migration.set_state(S.STOP)
    assert processor.device.read_register(Register.CONTROL) == 1


@settings(max_examples=100)
@given(st.integers(0, HEADER_BYTES - 1) | st.integers(HEADER_BYTES, len(STATE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_always_refused(place: int, change: int) -> None:
    data = bytearray(STATE)
    data[place] ^= change
    processor = Processor()
    stream = enter(processor.migration, S.RESUMING)
    try:
        stream.write(bytes(data))
    except CallRefused:
        assert place < HEADER_BYTES
    with refused(errno.EINVAL):
        processor.migration.set_state(S.STOP)
    assert processor.device.read_register(Register.CONTROL) == 0


def test_a_device_of_another_size_refuses_the_state() -> None:
    processor = Processor(local_bytes=2 * LOCAL)
    with refused(errno.EINVAL):
        enter(processor.migration, S.RESUMING).write(STATE)


@pytest.mark.parametrize("done", [4, MAX_LENGTH + 8])
def test_progress_that_cannot_be_is_refused(done: int) -> None:
    ring = RingState(request_head=1, in_flight=[bytes(REQUEST.size)])
    with pytest.raises(StateInvalid):
        decode_header(encode_header(GpuState(ring, done), LOCAL), LOCAL)
    with pytest.raises(StateInvalid):
        decode_header(encode_header(GpuState(RingState(), 8), LOCAL), LOCAL)
    assert decode_header(encode_header(GpuState(ring, 8), LOCAL), LOCAL).done == 8


def test_damaged_local_memory_is_refused_though_its_header_holds() -> None:
    data = bytearray(STATE)
    data[HEADER_BYTES + 100] ^= 1
    processor = Processor()
    enter(processor.migration, S.RESUMING).write(bytes(data))
    with refused(errno.EINVAL):
        processor.migration.set_state(S.STOP)
    data[-4:] = zlib.crc32(data[HEADER_BYTES:-4]).to_bytes(4, "little")
    processor.migration.reset()
    enter(processor.migration, S.RESUMING).write(bytes(data))
    processor.migration.set_state(S.STOP)


def test_blank_memory_reads_as_zeros() -> None:
    assert not np.frombuffer(blank(65536), dtype=np.uint8).any()
