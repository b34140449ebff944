"""Device state from one machine's devices to another's, whatever their size and whoever asks for how much."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.fake_device import FakeDevice
from vfio_host.interface.numbers import DeviceState, Feature, MigrationFlags
from vmm.vfio.device import ASSUMED_STATE_BYTES
from vmm.vfio.device_records import MAX_RECORD_BYTES, DeviceRecord, DeviceSum, DeviceTotal, RecordKind
from vmm.vfio.device_stream import DeviceRead, DeviceReaders, DeviceStreamRefused, DeviceWriters, PendingState
from vmm.vfio.host_port import HostCallFailed

STOP_COPY = MigrationFlags.STOP_COPY
SETUP, DATA, INITIAL_SENT, END = RecordKind.SETUP, RecordKind.DATA, RecordKind.INITIAL_SENT, RecordKind.END


def readers(*devices: FakeDevice) -> DeviceReaders:
    return DeviceReaders([each.device for each in devices])


def writers(*devices: FakeDevice) -> DeviceWriters:
    return DeviceWriters([each.device for each in devices])


def set_all(devices: list[FakeDevice], state: DeviceState) -> DeviceReaders:
    """Bring the devices that can to a state, and return readers whose data descriptors are open."""
    held = [each.device for each in devices]
    for device in held:
        if state is not DeviceState.PRE_COPY or MigrationFlags.PRE_COPY in device.flags:
            device.set_state(state)
    return DeviceReaders(held)


def drained(reading: DeviceReaders, budget: int = 1 << 30) -> list[DeviceRecord]:
    records: list[DeviceRecord] = []
    while (found := reading.read(budget)).records:
        assert sum(len(record.data) for record in found.records) <= budget
        records += found.records
    return records


def kinds(records: list[DeviceRecord] | tuple[DeviceRecord, ...]) -> list[RecordKind]:
    return [record.kind for record in records]


texts = st.binary(max_size=40)
flags = st.sampled_from([STOP_COPY, STOP_COPY | MigrationFlags.PRE_COPY, STOP_COPY | MigrationFlags.P2P])


@given(
    st.lists(st.tuples(flags, texts, texts, texts), max_size=4),
    st.lists(st.integers(1, 50), max_size=8),
    st.integers(1, 60),
)
@settings(max_examples=80)
def test_what_is_read_in_any_steps_makes_equal_devices_elsewhere(
    contents: list[tuple[MigrationFlags, bytes, bytes, bytes]], while_working: list[int], at_the_stop: int
) -> None:
    here = [FakeDevice(f"d{index}", *parts) for index, parts in enumerate(contents)]
    there = [FakeDevice(each.name, each.flags) for each in here]
    held = [each.device for each in here]
    for device in held:
        if MigrationFlags.PRE_COPY in device.flags:
            device.set_state(DeviceState.PRE_COPY)
    reading, writing = DeviceReaders(held), writers(*there)
    seen: list[DeviceRecord] = []

    def move(budget: int) -> DeviceRead:
        found = reading.read(budget)
        writing.write(found.records)
        seen.extend(found.records)
        return found

    for budget in while_working:
        assert not move(budget).complete or not here
    for device in held:
        device.set_state(DeviceState.STOP_COPY)
    while not move(at_the_stop).complete:
        pass
    assert reading.pending() == PendingState(0, 0)
    writing.require_whole(reading.total)
    writing.finish()
    for source, copy in zip(here, there, strict=True):
        assert copy.loaded == source.initial + source.dirty + source.rest
        assert copy.state is DeviceState.STOP
        own = kinds([record for record in seen if record.device == source.name])
        assert (own[0], own[-1], own.count(SETUP), own.count(END)) == (SETUP, END, 1, 1)
        assert own.count(INITIAL_SENT) <= (MigrationFlags.PRE_COPY in source.flags)


def test_initial_data_is_told_as_sent_once_when_all_of_it_is_read() -> None:
    device = FakeDevice(initial=b"initial", dirty=b"dirty", rest=b"rest")
    reading = set_all([device], DeviceState.PRE_COPY)
    first = reading.read(3)
    assert (kinds(first.records), first.initial_pending) == ([SETUP, DATA], ("fake0",))
    assert first.pending == PendingState(precopy=9, stop_copy=4)
    second = reading.read(4)
    assert (kinds(second.records), second.initial_pending) == ([DATA, INITIAL_SENT], ())
    assert kinds(drained(reading)) == [DATA]
    device.dirty += b"more"
    assert kinds(reading.read(100).records) == [DATA]


def test_a_device_without_initial_data_says_so_at_once() -> None:
    reading = set_all([FakeDevice()], DeviceState.PRE_COPY)
    assert kinds(reading.read(1).records) == [SETUP, INITIAL_SENT]


def test_a_device_that_stands_still_waits_for_no_acknowledgement() -> None:
    reading = set_all([FakeDevice(initial=b"initial", rest=b"rest")], DeviceState.STOP_COPY)
    found = reading.read(2)
    assert found.initial_pending == ()
    assert kinds([*found.records, *drained(reading)]) == [SETUP, DATA, DATA, END]


def test_a_running_device_without_pre_copy_gives_nothing_and_is_not_complete() -> None:
    device = FakeDevice(flags=STOP_COPY, rest=b"rest")
    found = readers(device).read(100)
    assert (found.records, found.complete, found.initial_pending) == ((), False, ())
    assert found.pending == PendingState(0, 4)


def test_devices_that_cannot_migrate_have_no_stream() -> None:
    plain = FakeDevice("plain", flags=MigrationFlags(0))
    assert readers(plain).read(100).complete
    writing = writers(plain)
    writing.require_whole(DeviceSum().total)
    with pytest.raises(DeviceStreamRefused, match="plain"):
        writing.write([DeviceRecord("plain", SETUP)])


def test_no_record_is_longer_than_a_frame_has_room_for() -> None:
    device = FakeDevice(rest=bytes(2 * MAX_RECORD_BYTES + 1))
    records = drained(set_all([device], DeviceState.STOP_COPY))
    assert [len(record.data) for record in records if record.data] == [MAX_RECORD_BYTES, MAX_RECORD_BYTES, 1]


def test_one_devices_haste_starves_no_other() -> None:
    hasty, calm = FakeDevice("hasty", initial=bytes(1000)), FakeDevice("calm", initial=b"calm")
    reading = set_all([hasty, calm], DeviceState.PRE_COPY)
    first, second = reading.read(10), reading.read(10)
    assert {record.device for record in first.records} == {"hasty"}
    assert DeviceRecord("calm", INITIAL_SENT) in second.records


def test_a_size_that_the_host_cannot_tell_is_assumed_too_large_for_any_standstill() -> None:
    device = FakeDevice(refused_features={Feature.MIG_DATA_SIZE: errno.EIO}, initial=b"abc")
    reading = set_all([device], DeviceState.PRE_COPY)
    assert reading.pending() == PendingState(3, ASSUMED_STATE_BYTES - 3)
    assert ASSUMED_STATE_BYTES == 100 << 30


class SilentAtTheStop(FakeDevice):
    """Says "nothing now" where only the end may be said."""

    def data(self, start: int, size: int) -> bytes:
        del start, size
        self.state = DeviceState.PRE_COPY
        return b""


def test_a_device_that_has_nothing_now_at_the_stop_has_failed() -> None:
    device = SilentAtTheStop(rest=b"rest")
    reading = set_all([device], DeviceState.STOP_COPY)
    with pytest.raises(HostCallFailed, match="ENOMSG"):
        reading.read(10)


# What the destination refuses.


@pytest.mark.parametrize(
    "records",
    [
        [DeviceRecord("fake0", DATA, memoryview(b"x"))],
        [DeviceRecord("fake0", END)],
        [DeviceRecord("fake0", SETUP), DeviceRecord("fake0", SETUP)],
        [DeviceRecord("fake0", SETUP), DeviceRecord("fake0", INITIAL_SENT), DeviceRecord("fake0", INITIAL_SENT)],
        [DeviceRecord("fake0", SETUP), DeviceRecord("fake0", END), DeviceRecord("fake0", DATA, memoryview(b"x"))],
        [DeviceRecord("fake1", SETUP)],
    ],
)
def test_records_that_do_not_follow_are_refused(records: list[DeviceRecord]) -> None:
    with pytest.raises(DeviceStreamRefused):
        writers(FakeDevice()).write(records)


def test_a_device_that_takes_a_part_has_failed() -> None:
    writing = writers(FakeDevice(takes=2))
    with pytest.raises(HostCallFailed, match="EIO"):
        writing.write([DeviceRecord("fake0", SETUP), DeviceRecord("fake0", DATA, memoryview(b"abc"))])


def test_a_stream_that_lost_or_swapped_anything_is_not_whole() -> None:
    first, second = (DeviceRecord("fake0", DATA, memoryview(text)) for text in (b"one", b"two"))
    setup, end = DeviceRecord("fake0", SETUP), DeviceRecord("fake0", END)
    sent = summed(setup, first, second, end)
    for came in ((setup, first, end), (setup, second, first, end), (setup, first, first, second, end)):
        writing = writers(FakeDevice())
        writing.write(came)
        with pytest.raises(DeviceStreamRefused, match="not what was sent"):
            writing.require_whole(sent)
    writing = writers(FakeDevice())
    writing.write((setup, first, second))
    with pytest.raises(DeviceStreamRefused, match="end"):
        writing.require_whole(sent)
    writing.write([end])
    writing.require_whole(sent)


def test_a_state_that_is_finished_twice_is_taken_over_once() -> None:
    device = FakeDevice()
    writing = writers(device)
    writing.write([DeviceRecord("fake0", SETUP), DeviceRecord("fake0", END)])
    writing.finish()
    writing.finish()
    assert device.log == ["fake0 RESUMING", "fake0 STOP"]


def summed(*records: DeviceRecord) -> DeviceTotal:
    adding = DeviceSum()
    for record in records:
        adding.add(record)
    return adding.total


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(RecordKind), texts), max_size=4))
@settings(max_examples=40)
def test_a_total_knows_where_one_record_ends(parts: list[tuple[str, RecordKind, bytes]]) -> None:
    records = [DeviceRecord(name, kind, memoryview(data)) for name, kind, data in parts]
    total = summed(*records)
    assert (total.records, total.data_bytes) == (len(parts), sum(len(data) for _, _, data in parts))
    if records and records[0].data:
        head, *tail = records
        cut = [
            DeviceRecord(head.device, head.kind, head.data[:1]),
            DeviceRecord(head.device, head.kind, head.data[1:]),
            *tail,
        ]
        assert summed(*cut).checksum != total.checksum
