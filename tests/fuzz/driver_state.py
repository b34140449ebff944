"""What moves of one device's driver in the guest: the first byte names the driver, the rest is its state."""

import msgspec

from tests.fuzz.target import Target
from tests.vmm.guest.test_every_driver import GPU, NIC, QAT
from vmm.guest import gpu_progress, nic_progress, qat_state
from vmm.guest.device_driver import ProgressRefused

_READERS = (gpu_progress.decoded, nic_progress.decoded, qat_state.decoded)


def _read(data: bytes) -> None:
    _READERS[data[0] % len(_READERS) if data else 0](data[1:])  # which refuses what is not canonical


TARGET = Target(
    "driver_state",
    _read,
    refusals=(ProgressRefused,),
    seeds={
        name: bytes((index,)) + msgspec.msgpack.encode(state)
        for index, (name, state) in enumerate((("gpu", GPU), ("nic", NIC), ("qat", QAT)))
    },
    factor=64,
)
