"""The graphics processor: results that depend on everything its local memory has been through."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.gpu_bench import LOCAL, Jobs, Processor
from tests.vfio_host.ring_driver import ENTRIES, MEMORY_BYTES, OUTPUTS
from vfio_host.errors import CallRefused
from vfio_host.interface.gpu import LOCAL_BYTES_OFFSET, MAX_LENGTH
from vfio_host.interface.qat import Register, Status

U64 = st.integers(0, (1 << 64) - 1)


def working() -> tuple[Processor, Jobs]:
    processor = Processor()
    processor.enable()
    return processor, Jobs(processor.memory.view)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, LOCAL // 8 - 1), st.integers(1, 3000)), min_size=1, max_size=20))
def test_results_follow_from_all_jobs_before(places: list[tuple[int, int]]) -> None:
    processor, jobs = working()
    for word, words in places:
        local, length = word * 8, min(words * 8, LOCAL - word * 8)
        jobs.accumulate(local=local, length=length)
        processor.run(jobs)
        assert jobs.check() == 1
        assert processor.memory.view[OUTPUTS : OUTPUTS + length] == jobs.expected[-1]
    assert processor.device.read_register(Register.BYTES_WRITTEN) == sum(map(len, jobs.expected))


@pytest.mark.parametrize("length", [8, 65536, 65544, MAX_LENGTH])
def test_a_step_takes_a_slice_and_a_job_any_length(length: int) -> None:
    processor, jobs = working()
    jobs.accumulate(local=LOCAL - length, length=length)
    jobs.publish()
    processor.device.ring()
    steps = 0
    while processor.step():
        steps += 1
    assert jobs.check() == 1
    assert steps <= -(-length // 65536) + 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"length": 0}, Status.BAD_REQUEST),
        ({"length": 12}, Status.BAD_REQUEST),
        ({"length": MAX_LENGTH + 8}, Status.BAD_REQUEST),
        ({"local": 4}, Status.BAD_REQUEST),
        ({"local": LOCAL}, Status.BAD_REQUEST),
        ({"local": LOCAL - 56}, Status.BAD_REQUEST),
        ({"local": (1 << 64) - 8}, Status.BAD_REQUEST),
        ({"operation": 0}, Status.BAD_REQUEST),
        ({"capacity": 63}, Status.OVERFLOW),
        ({"source": 1 << 60}, Status.FAULT),
        ({"destination": MEMORY_BYTES - 8}, Status.FAULT),
    ],
)
def test_a_bad_job_ends_as_a_status_and_leaves_local_memory_alone(change: dict[str, int], status: Status) -> None:
    processor, jobs = working()
    jobs.raw(0, **change)
    jobs.expected.append(b"")
    processor.run(jobs)
    (answer,) = jobs.collect()
    assert (answer.job, answer.status, answer.length) == (0, status, 0)
    assert processor.device.read_register(Register.FAULTS) == (status is Status.FAULT)
    jobs.accumulate(local=0, length=4096)
    jobs.accumulate(local=LOCAL - 4096, length=4096)
    processor.run(jobs)
    assert jobs.check() == 2


def test_local_memory_outlives_a_disable_and_not_a_reset() -> None:
    processor, jobs = working()
    jobs.accumulate(local=0, length=64)
    processor.run(jobs)
    jobs.check()
    processor.device.write_register(Register.CONTROL, 0)
    again = Jobs(processor.memory.view)
    again.local = jobs.local
    again.put(0, bytes(32))
    processor.enable()
    again.accumulate(local=0, length=64)
    processor.run(again)
    assert again.check() == 1
    processor.device.reset()
    fresh = Jobs(processor.memory.view)
    fresh.put(0, bytes(32))
    processor.enable()
    fresh.accumulate(local=0, length=64)
    processor.run(fresh)
    assert fresh.check() == 1


def test_the_register_of_local_memory_is_read_only() -> None:
    processor, _ = working()
    processor.device.write_register(LOCAL_BYTES_OFFSET, 5)
    assert processor.device.read_register(LOCAL_BYTES_OFFSET) == LOCAL
    with pytest.raises(CallRefused, match="EINVAL"):
        processor.device.read_register(0x50)


@settings(max_examples=150)
@given(st.lists(st.tuples(*[U64 | st.integers(0, LOCAL)] * 4, st.integers(0, 2)), max_size=12))
def test_arbitrary_requests_never_raise_and_end(entries: list[tuple[int, int, int, int, int]]) -> None:
    processor, jobs = working()
    for source, destination, local, length, operation in entries:
        jobs.raw(
            0,
            source=source,
            destination=destination,
            local=local,
            length=length & 0xFFFFFFFF,
            operation=operation,
            multiplier=source & 0xFFFFFFFF,
        )
    jobs.publish()
    processor.device.ring()
    for _ in range(10 * ENTRIES):
        if not processor.step():
            return
    pytest.fail("device never comes to rest")
