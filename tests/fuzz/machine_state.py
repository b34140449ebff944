"""A machine's saved state (vmm.assembly.machine_state)."""

from tests.fuzz.target import Target, same
from vmm.assembly.machine_state import STATE_FORMAT, InvalidState, MachineState, Origin, decode, encode
from vmm.vfio.device_records import DeviceTotal


def _read(data: bytes) -> None:
    same(encode(decode(data)), data)


_STATE = MachineState(
    STATE_FORMAT, Origin("image", ("/srv/image",), "ab" * 32), b"VTDS", DeviceTotal(3, 77, 1 << 63), b"guest"
)
TARGET = Target("machine_state", _read, refusals=(InvalidState,), seeds={"whole": encode(_STATE)}, factor=64)
