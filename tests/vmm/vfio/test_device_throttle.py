"""Devices are held and woken together, one that refuses is left alone, and none stays held when the throttle ends."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.fake_device import ALL, FakeDevice
from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio import device_migration
from vmm.vfio.device_throttle import DeviceThrottle
from vmm.vfio.quiesce_slices import PERIOD_NS

S = DeviceState
NO_PRECOPY = MigrationFlags.STOP_COPY | MigrationFlags.P2P
NO_P2P = MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY
WORKING = (S.RUNNING, S.PRE_COPY)
LONG = 100 * PERIOD_NS
HELD = PERIOD_NS - 1
"""The last moment of the first period: devices are held at it, whatever is taken."""


def throttled(*fakes: FakeDevice) -> DeviceThrottle:
    throttle = DeviceThrottle([fake.device for fake in fakes])
    throttle.begin_anew()
    device_migration.begin_precopy([fake.device for fake in fakes])
    throttle.take(50, 0, LONG)
    return throttle


def test_devices_are_held_for_their_slice_and_work_in_the_rest_each_in_its_own_pair_of_states() -> None:
    one, other, plain = FakeDevice("one"), FakeDevice("other", NO_PRECOPY), FakeDevice("plain", MigrationFlags(0))
    throttle = throttled(one, other, plain)
    assert (throttle.slowed, throttle.at_full_speed) == (("one", "other"), ("plain",))
    now, seen = 0, []
    for _ in range(5):
        seen.append((now, one.state, other.state))
        change = throttle.step(now)
        assert change is not None
        now = change
    half = PERIOD_NS // 2
    working, held = (S.PRE_COPY, S.RUNNING), (S.PRE_COPY_P2P, S.RUNNING_P2P)
    states = [(0, *working), (half, *working), (2 * half, *held), (3 * half, *working), (4 * half, *held)]
    assert seen == states, "each was looked at before the step of its moment"
    assert plain.log == []


def test_the_stream_of_a_held_device_goes_on() -> None:
    fake = FakeDevice(initial=b"initial", dirty=b"dirty", rest=b"rest")
    device = fake.device
    throttle = DeviceThrottle([device])
    device_migration.begin_precopy([device])
    throttle.take(50, 0, LONG)
    read = bytes(device.read_data(4) or b"")
    throttle.step(HELD)
    read += bytes(device.read_data(4) or b"")
    throttle.step(PERIOD_NS)
    read += bytes(device.read_data(100) or b"")
    throttle.step(PERIOD_NS + HELD)
    throttle.leave()
    device_migration.stop([device])
    assert read + bytes(device.read_data(100) or b"") == b"initialdirtyrest"


@pytest.mark.parametrize("at", [0, HELD])
def test_devices_are_stopped_as_they_are_and_nothing_moves_them_afterwards(at: int) -> None:
    fakes = [FakeDevice("one"), FakeDevice("other", NO_PRECOPY)]
    throttle = throttled(*fakes)
    throttle.step(at)
    log = fakes[0].log
    before = len(log)
    throttle.leave()
    device_migration.stop([fake.device for fake in fakes])
    assert [fake.state for fake in fakes] == [S.STOP_COPY, S.STOP_COPY]
    assert len(log) - before == (1 if at else 2), "one that is held already is not held once more"
    assert throttle.step(PERIOD_NS) is None
    throttle.end()
    assert [fake.state for fake in fakes] == [S.STOP_COPY, S.STOP_COPY]
    device_migration.start([fake.device for fake in fakes])
    assert [fake.state for fake in fakes] == [S.RUNNING, S.RUNNING]


def test_a_throttle_that_nobody_asks_for_again_ends_by_itself() -> None:
    fake = FakeDevice()
    throttle = DeviceThrottle([fake.device])
    throttle.take(50, 0, HELD)
    throttle.step(HELD - 1)
    assert [fake.state] == [S.RUNNING_P2P]
    assert throttle.step(HELD - 1) == HELD
    assert throttle.step(HELD) is None
    assert fake.state is S.RUNNING
    assert throttle.percent(HELD) == 0


def test_a_device_that_refuses_to_be_held_is_left_alone_and_told_of_and_its_pre_copy_goes_on() -> None:
    one = FakeDevice("one", refused={S.PRE_COPY_P2P: errno.EBUSY})
    other = FakeDevice("other")
    throttle = throttled(one, other)
    throttle.step(HELD)
    assert (one.state, other.state) == (S.PRE_COPY, S.PRE_COPY_P2P)
    assert (throttle.slowed, throttle.at_full_speed) == (("other",), ("one",))
    (text,) = throttle.take_failures()
    assert "one is throttled no more" in text
    assert "EBUSY" in text
    asked = len(one.log)
    throttle.step(PERIOD_NS)
    throttle.step(PERIOD_NS + HELD)
    assert len(one.log) == asked
    assert throttle.take_failures() == []
    assert throttle.lost is None
    throttle.begin_anew()
    assert throttle.slowed == ("one", "other"), "the next attempt asks again"


def test_a_machine_of_which_every_device_refuses_is_not_throttled() -> None:
    throttle = throttled(FakeDevice(refused={S.PRE_COPY_P2P: errno.EBUSY}))
    assert throttle.percent(0) == 50
    throttle.step(HELD)
    assert throttle.percent(HELD) == 0


def test_a_device_that_does_not_wake_into_its_pre_copy_works_and_its_stream_is_of_no_use() -> None:
    fake = FakeDevice(refused={})
    throttle = throttled(fake)
    throttle.step(HELD)
    fake.refused[S.PRE_COPY] = errno.EIO
    throttle.step(PERIOD_NS)
    assert fake.state is S.RUNNING
    assert throttle.lost is not None
    assert throttle.lost.errno == errno.EIO
    throttle.begin_anew()
    assert throttle.lost is None


def test_a_device_that_is_in_error_is_reset_and_its_stream_is_of_no_use() -> None:
    fake = FakeDevice(refused={S.PRE_COPY: errno.EIO, S.RUNNING: errno.EIO})
    fake.state = S.PRE_COPY
    throttle = DeviceThrottle([fake.device])
    throttle.take(50, 0, LONG)
    throttle.step(HELD)
    throttle.step(PERIOD_NS)
    assert fake.log[-1] == "fake0 reset"
    assert fake.state is S.RUNNING
    assert throttle.lost is not None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("step"), st.integers(1, 3 * PERIOD_NS)),
            st.tuples(st.just("take"), st.integers(0, 80)),
            st.tuples(st.sampled_from(["refuse", "obey", "end", "anew"]), st.just(0)),
        ),
        max_size=40,
    ),
    st.sampled_from([ALL, NO_PRECOPY, NO_P2P]),
)
def test_a_device_works_whenever_nothing_is_taken_whatever_happened_before(
    events: list[tuple[str, int]], flags: MigrationFlags
) -> None:
    fake, now = FakeDevice(flags=flags), 0
    throttle = DeviceThrottle([fake.device])
    device_migration.begin_precopy([fake.device])
    for what, value in events:
        match what:
            case "step":
                now += value
                throttle.step(now)
            case "take":
                throttle.take(value, now, now + 5 * PERIOD_NS)
            case "refuse":
                fake.refused = {S.PRE_COPY_P2P: errno.EBUSY, S.RUNNING_P2P: errno.EBUSY}
            case "obey":
                fake.refused = {}
            case "end":
                throttle.end()
            case _:
                throttle.begin_anew()
        assert fake.state in WORKING or (throttle.percent(now) and MigrationFlags.P2P in flags)
        assert throttle.lost is None
    throttle.end()
    assert fake.state is (S.PRE_COPY if MigrationFlags.PRE_COPY in flags else S.RUNNING)
