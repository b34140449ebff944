"""What every device of the host is, whatever its model, and how its state is read and written.

::

    Hardware            registers, doorbell, address space; works in bounded steps, by the time that it is told
    MigratableHardware  the same, with a state that can be read (StateSource) and taken over (StateSink)

Who drives a device asks `due_ns` and calls `step` then; nothing here reads a clock. `MigrationDriver` decides whether
a device may step at all, and gives sources and sinks their moments.
"""

from typing import Final, Protocol

from vfio_host.interface.calls import PrecopyInfo
from vfio_host.interface.numbers import MigrationFlags
from vfio_host.io_page_table import IoPageTable

NEVER: Final = (1 << 63) - 1
"""A moment that does not come: the device waits for its doorbell, its registers or its mappings."""
MAX_READ: Final = 1 << 20
"""Bytes of device state that one read returns at most."""


class Hardware(Protocol):
    """A device as its driver, its IOMMU and its power button know it."""

    def attach(self, table: IoPageTable | None) -> None:
        """Give the device its address space; None stops every DMA of it with a fault."""

    def ring(self) -> None:
        """Take notice of the doorbell."""

    def reset(self) -> None:
        """Empty every register, forget everything."""

    @property
    def due_ns(self) -> int:
        """When a step would do something, in the time that `step` is told: 0 for at once, NEVER for not by itself."""

    def step(self, now_ns: int) -> None:
        """Do one bounded piece of work, about a millisecond at most; nothing when none is due."""

    def write_register(self, offset: int, value: int) -> None:
        """Write a 64-bit register of region 0. CallRefused (EINVAL) where the data sheet has none."""

    def read_register(self, offset: int) -> int:
        """Read a register of region 0. CallRefused (EINVAL) where the data sheet has none."""


class StateSource(Protocol):
    """A device's state being read, once: what all reads returned is what a sink must be written."""

    def precopy_info(self) -> PrecopyInfo:
        """Return what is to be read while the device runs; initial_bytes never grows."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, MAX_READ at most; empty for nothing now, and after `stop` at the end."""

    def stop(self) -> None:
        """Take notice that the device stands still: what is read from here on makes the state whole."""


class StateSink(Protocol):
    """A device's state being written; the device keeps what it had until `finish`."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            StateInvalid: They are no state of this device.
            CallRefused: ENOMEM when the state is longer than any of this device.
        """

    def finish(self) -> None:
        """Check what was written, and take it over.

        Raises:
            StateInvalid: It is short, damaged, or of another device; the device keeps what it had.
        """


class MigratableHardware(Hardware, Protocol):
    """A device under a VFIO driver that can migrate it."""

    @property
    def flags(self) -> MigrationFlags:
        """What its migration supports."""

    @property
    def state_bytes(self) -> int:
        """How many bytes of state a stop would leave to be read, as of now (VFIO_MIG_DATA_SIZE)."""

    def save(self) -> StateSource:
        """Begin to read the state; a source that was begun before is dropped."""

    def load(self) -> StateSink:
        """Begin to write a state."""

    def resume(self) -> None:
        """Begin to run after a stop, which may have been at another host: no doorbell and no time has counted."""
