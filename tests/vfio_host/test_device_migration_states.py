"""Every cell of the migration state table with real devices: states, data descriptors, and what a refusal leaves."""

import errno

import pytest

from tests.vfio_host.device_streams import read_all
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.devices.gpu import Gpu
from vfio_host.devices.hardware import NEVER, MigratableHardware
from vfio_host.devices.migration_driver import DataStream, LoadStream, MigrationDriver, SaveStream
from vfio_host.devices.migration_state import path
from vfio_host.devices.nic import Nic
from vfio_host.devices.qat import Qat
from vfio_host.errors import CallRefused
from vfio_host.interface.gpu import LOCAL_GRANULE
from vfio_host.interface.numbers import DeviceState as S
from vfio_host.interface.numbers import MigrationFlags as F
from vfio_host.io_page_table import IoPageTable

SAVING = {S.PRE_COPY, S.PRE_COPY_P2P, S.STOP_COPY}
RUNNING = {S.RUNNING, S.PRE_COPY}
FLAGS = [F(1), F(3), F(5), F(7)]


class WithFlags:
    """A real device whose driver offers less, or in the case of the graphics processor more, than it can do itself."""

    def __init__(self, model: str, flags: F) -> None:
        self.device = device_of(model)
        table = IoPageTable()
        table.map(0, 1 << 20, shared_memory(1 << 20), 0)
        self.device.attach(table)
        self.migration = MigrationDriver(_Restricted(self.device, flags))


def device_of(model: str) -> MigratableHardware:
    match model:
        case "qat":
            return Qat(ignore)
        case "nic":
            return Nic(ignore)
        case _:
            return Gpu(ignore, LOCAL_GRANULE)


def ignore() -> None:
    return None


class _Restricted:
    """A device with other flags."""

    def __init__(self, device: MigratableHardware, flags: F) -> None:
        self._flags = flags
        self.attach, self.ring, self.reset, self.step = device.attach, device.ring, device.reset, device.step
        self.write_register, self.read_register = device.write_register, device.read_register
        self.save, self.load, self.resume = device.save, device.load, device.resume
        self._device = device

    @property
    def flags(self) -> F:
        return self._flags

    @property
    def state_bytes(self) -> int:
        return self._device.state_bytes

    @property
    def due_ns(self) -> int:
        return self._device.due_ns


def valid_state(model: str) -> bytes:
    saved = WithFlags(model, F(1))
    stream = saved.migration.set_state(S.STOP_COPY)
    assert stream is not None
    return read_all(stream)


def brought_to(model: str, state: S, flags: F) -> tuple[WithFlags, DataStream | None]:
    """Return a device in a state, with the stream that is open there; RESUMING has a whole state written."""
    made = WithFlags(model, flags)
    stream = made.migration.set_state(state) if state is not S.RUNNING else None
    if state is S.RESUMING and stream is not None:
        stream.write(valid_state(model))
    assert made.migration.state is state
    return made, stream


def cells(flags: F) -> list[tuple[S, S]]:
    return [(start, target) for start in S for target in S if reachable(start, flags)]


def reachable(state: S, flags: F) -> bool:
    try:
        path(S.RUNNING, state, flags)
    except CallRefused:
        return False
    return True


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("model", ["qat", "nic", "gpu"])
def test_every_cell_with_a_real_device(model: str, flags: F) -> None:
    for start, target in cells(flags):
        made, before = brought_to(model, start, flags)
        try:
            way = path(start, target, flags)
        except CallRefused:
            with pytest.raises(CallRefused, match="EINVAL"):
                made.migration.set_state(target)
            assert made.migration.state is start
            check_open(before, start)
            continue
        stream = made.migration.set_state(target)
        assert made.migration.state is target
        assert made.migration.running is (target in RUNNING)
        check_streams(way, before, stream)


def check_streams(way: tuple[S, ...], before: DataStream | None, after: DataStream | None) -> None:
    """Semantics 7.3: a data descriptor comes with PRE_COPY, STOP_COPY from STOP, and RESUMING; and goes with them."""
    start, target = way[0], way[-1]
    if len(way) == 1 or (start in SAVING and set(way) <= SAVING):
        assert after is None
        check_open(before, target)
        return
    check_closed(before)
    if target in SAVING:
        assert isinstance(after, SaveStream)
    elif target is S.RESUMING:
        assert isinstance(after, LoadStream)
    else:
        assert after is None
    check_open(after, target)


def check_closed(stream: DataStream | None) -> None:
    if isinstance(stream, SaveStream):
        with pytest.raises(CallRefused, match="ENODEV"):
            stream.read(1)
    elif stream is not None:
        with pytest.raises(CallRefused, match="ENODEV"):
            stream.write(b"")


def check_open(stream: DataStream | None, state: S) -> None:
    """Reading gives ENOMSG or data in pre-copy, data up to an end in STOP_COPY; RESUMING takes data."""
    if isinstance(stream, LoadStream):
        assert stream.write(b"") == 0
    elif stream is not None and state is S.STOP_COPY:
        assert read_all(stream)
        assert stream.read(1) == b""
        with pytest.raises(CallRefused, match="EINVAL"):
            stream.precopy_info()
    elif stream is not None:
        info = stream.precopy_info()
        while info.initial_bytes + info.dirty_bytes:
            assert stream.read(1 << 20)
            info = stream.precopy_info()
        with pytest.raises(CallRefused, match="ENOMSG"):
            stream.read(1)


@pytest.mark.parametrize("model", ["qat", "nic", "gpu"])
def test_a_failed_load_stays_in_resuming_until_a_reset(model: str) -> None:
    made = WithFlags(model, F(7))
    made.migration.set_state(S.RESUMING)
    for target in (S.STOP, S.RUNNING, S.STOP_COPY, S.PRE_COPY, S.RUNNING_P2P):
        with pytest.raises(CallRefused) as refusal:
            made.migration.set_state(target)
        assert refusal.value.errno == errno.EINVAL
        assert made.migration.state is S.RESUMING
    made.migration.reset()
    assert made.migration.state is S.RUNNING


@pytest.mark.parametrize("model", ["qat", "nic", "gpu"])
def test_a_stream_that_is_left_unread_ends_with_its_state(model: str) -> None:
    made = WithFlags(model, F(3))
    first = made.migration.set_state(S.STOP_COPY)
    assert first is not None
    assert first.read(10)
    assert made.migration.set_state(S.STOP) is None
    check_closed(first)
    second = made.migration.set_state(S.STOP_COPY)
    assert second is not None
    assert len(read_all(second)) == made.migration.state_bytes


@pytest.mark.parametrize("model", ["qat", "nic", "gpu"])
def test_a_state_of_one_model_is_none_of_another(model: str) -> None:
    for other in {"qat", "nic", "gpu"} - {model}:
        made = WithFlags(model, F(7))
        stream = made.migration.set_state(S.RESUMING)
        assert stream is not None
        with pytest.raises(CallRefused, match="EINVAL"):
            stream.write(valid_state(other)[:4096])
        assert made.device.due_ns == NEVER
