"""A machine whose one device is real to its readers."""

from dataclasses import dataclass, field

from tests.fakes.fake_device import FakeDevice
from tests.fakes.filled_machine import FilledMachine
from vfio_host.interface.numbers import DeviceState
from vmm.process.control import DeviceData
from vmm.vfio.device_stream import DeviceReaders


@dataclass
class MachineWithDevice(FilledMachine):
    """It begins in pre-copy; `budgets` are what its readings may have."""

    of: FakeDevice = field(default_factory=FakeDevice)
    budgets: list[int] = field(default_factory=list)
    grows_by: bytes = b""
    """What its device learns while it is read."""

    def __post_init__(self) -> None:
        self.held = self.of.device
        self.readers = DeviceReaders([self.held])
        self.held.set_state(DeviceState.PRE_COPY)

    async def read_device_data(self, budget: int) -> DeviceData:
        self.budgets.append(budget)
        found = self.readers.read(budget)
        self.of.dirty += self.grows_by
        return DeviceData(
            records=found.records,
            complete=found.complete,
            precopy_bytes=found.pending.precopy,
            stop_copy_bytes=found.pending.stop_copy,
            initial_pending=found.initial_pending,
        )
