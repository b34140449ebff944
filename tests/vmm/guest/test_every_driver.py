"""What holds for the driver of every model, on a real device: no room, a false index page, false states."""

from collections.abc import Callable, Iterator
from typing import get_args

import msgspec
import pytest

from tests.vmm.guest.real_device import Pair, pair
from vfio_host.devices.gpu import Gpu
from vfio_host.devices.hardware import MigratableHardware
from vfio_host.devices.nic import Nic
from vfio_host.devices.qat import Qat
from vfio_host.interface.rings import ANSWERED, RingRegister
from vmm.assembly.specification import DeviceModel
from vmm.guest import gpu_progress, nic_progress, qat_state
from vmm.guest.device_driver import LARGEST_STATE, ProgressRefused
from vmm.guest.dma import MapFailed
from vmm.guest.driver_needs import CORPUS_BYTES
from vmm.guest.drivers import DRIVERS
from vmm.guest.gpu_jobs import TILE_BYTES
from vmm.guest.gpu_progress import GpuProgress
from vmm.guest.layout import MIB
from vmm.guest.material import Material
from vmm.guest.nic_progress import NicProgress
from vmm.guest.pacing import NEVER
from vmm.guest.qat_state import QatState, SlabState

DEVICES: dict[str, Callable[[Callable[[], None]], MigratableHardware]] = {
    "qat": Qat,
    "nic": Nic,
    "gpu": lambda raise_completion: Gpu(raise_completion, 40 * TILE_BYTES),
}


@pytest.fixture(params=DEVICES)
def working(request: pytest.FixtureRequest, material: Material) -> Iterator[Pair]:
    with pair(DEVICES[request.param], request.param, 50 * MIB, material) as made:
        made.run(50)
        assert made.driver.answered > 0
        yield made


def test_every_model_has_a_driver_and_memory_for_it() -> None:
    assert set(get_args(DeviceModel)) == set(DRIVERS) == set(CORPUS_BYTES)


def test_rings_that_find_no_room_leave_the_driver_closed(working: Pair) -> None:
    working.driver.halt()
    working.wake()
    working.run(50)
    working.driver.close()
    working.mapper.full = True
    with pytest.raises(MapFailed):
        working.driver.open(working.mapper)
    assert (working.driver.opened, working.driver.busy, working.driver.idle) == (False, False, True)
    assert working.driver.step(working.now) == NEVER
    assert working.port.read(RingRegister.CONTROL) == working.driver.errors == 0


def test_an_index_page_that_cannot_be_ends_the_driver(working: Pair) -> None:
    working.memory.write_u64(working.layout.devices[0].rings + ANSWERED, 1 << 60)
    working.driver.interrupt()
    before = working.port.doorbells
    assert working.driver.step(working.now) == NEVER
    assert (working.driver.failed, working.driver.errors) == (True, 1)
    assert (working.driver.busy, working.driver.idle, working.port.doorbells) == (False, True, before)
    assert working.driver.step(working.now) == NEVER
    working.driver.close()
    assert (working.mapper.mapped, working.driver.errors) == ({}, 1)
    assert working.port.read(RingRegister.CONTROL) == 0


def test_a_state_is_small(working: Pair) -> None:
    assert len(working.driver.save()) < LARGEST_STATE // 100


GPU = GpuProgress(
    rings=0,
    tiles=8,
    submitted=40,
    checked=30,
    answered=30,
    errors=0,
    bytes_written=0,
    halted=False,
    failed=False,
    slabs=((0, 1 << 21), (1 << 22, 1 << 23)),
)
NIC = NicProgress(
    rings=0,
    posted=256,
    checked=100,
    answered=1,
    dropped=0,
    errors=0,
    bytes_written=0,
    halted=False,
    failed=False,
    segments=(1 << 20, 2 << 20),
)
QAT = QatState(
    rings=0,
    first=10,
    submitted=40,
    answered=30,
    errors=0,
    own_errors=0,
    bytes_written=0,
    halted=False,
    failed=False,
    slabs=(SlabState(0, 1 << 21, ((1 << 22, 4096),)), SlabState(1, 1 << 23, ())),
)
STATES: list[tuple[Callable[[bytes], msgspec.Struct], msgspec.Struct]] = [
    (gpu_progress.decoded, GPU),
    (nic_progress.decoded, NIC),
    (qat_state.decoded, QAT),
]


@pytest.mark.parametrize(
    ("good", "change"),
    [
        (GPU, {"checked": 41}),
        (GPU, {"checked": -1}),
        (GPU, {"slabs": ((0, 1),)}),
        (GPU, {"slabs": ((0, 1), (2, 1 << 60))}),
        (GPU, {"tiles": 0}),
        (GPU, {"tiles": 1 << 40}),
        (GPU, {"rings": None}),
        (GPU, {"rings": None, "tiles": 0}),
        (GPU, {"submitted": 120, "slabs": ((0, 1),) * 4}),
        (NIC, {"posted": 255}),
        (NIC, {"checked": 257}),
        (NIC, {"checked": -1}),
        (NIC, {"segments": (1,)}),
        (NIC, {"segments": (1, -1)}),
        (NIC, {"segments": (1, 1 << 60)}),
        (NIC, {"rings": None}),
        (NIC, {"posted": 2560, "segments": (1,) * 20}),
        (NIC, {"errors": -1}),
        (QAT, {"answered": -1}),
        (QAT, {"answered": 41}),
        (QAT, {"first": 31}),
        (QAT, {"rings": None}),
        (QAT, {"slabs": QAT.slabs[:1]}),
        (QAT, {"own_errors": -1}),
    ],
)
def test_a_state_that_cannot_be_is_refused(good: msgspec.Struct, change: dict[str, object]) -> None:
    decoded = next(decoded for decoded, state in STATES if state is good)
    assert decoded(msgspec.msgpack.encode(good)) == good
    with pytest.raises(ProgressRefused):
        decoded(msgspec.msgpack.encode(msgspec.structs.replace(good, **change)))


@pytest.mark.parametrize(("decoded", "good"), STATES)
def test_bytes_that_are_no_canonical_state_are_refused(
    decoded: Callable[[bytes], msgspec.Struct], good: msgspec.Struct
) -> None:
    state = msgspec.msgpack.encode(good)
    wide = state.replace(b"\x1e", b"\xcc\x1e", 1).replace(b"\x64", b"\xcc\x64", 1)  # 30 or 100 in two bytes, not one
    assert msgspec.msgpack.decode(wide, type=type(good)) == good
    assert wide != state
    for data in (b"", b"\xc1", b"\x90", b"\xff" * 40, state + b"x", state[:-1], wide):
        with pytest.raises(ProgressRefused):
            decoded(data)
