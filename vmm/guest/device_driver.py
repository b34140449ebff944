"""What every device driver in the guest does, whatever its device: `vmm.guest.device_owner` drives all of them alike.

::

    boot             once in the guest's life: lay out what the device works on, in RAM; no device, no mapping
    open(mapper)     map rings, program the device, start                  -+
    step, interrupt  work, and check what came                              |  again and again, each time
    halt             give the device no more work, or let it receive none   |  on another mapper
    resume           take a halt back                                       |
    close            disable the device, then unmap everything             -+

`busy` says that the device may still write guest memory: work is in flight, or it receives. `idle` says that it is
not busy, and that everything it wrote has been looked at. After `halt` and while steps go on, a driver becomes idle
by itself; with a device that answers no more it does not, and `close` then drops what is in flight, which counts as
an error. A driver that finds its own memory spoilt counts an error, sets `failed` and is idle from then on.

Drivers write nothing outside their `DeviceArea`, know time from `now_ns` only and chance from their seed only. Whoever
calls may save between any two calls, and load into a driver that was just made on another host.
"""

from typing import Final, Protocol

from vmm.guest.dma import DevicePort, DmaMapper
from vmm.guest.layout import DeviceArea
from vmm.guest.material import Material
from vmm.memory.guest_physical import GuestMemory

LARGEST_STATE: Final = 64 << 10
"""Bytes that a driver's saved state has at most."""


class ProgressRefused(Exception):
    """Bytes are not a saved state of this driver. Nothing was changed."""


class DeviceDriver(Protocol):
    """A driver of one device. `asked` and `rate` are in bytes per second that the device writes."""

    asked: int
    """What the specification asks for."""
    errors: int
    """What was wrong: lost, late or false answers and packets, whoever is to blame, but for `own_errors`."""
    own_errors: int
    """What was wrong because this driver misbehaves on purpose (`guest.dma_after_unmap`)."""
    answered: int
    """Jobs or packets that were looked at; only ever grows."""
    bytes_written: int
    """What the device wrote for them."""
    halted: bool
    """Between `halt` and `resume`. `open` leaves it as it is: a halted driver opens its device and gives no work."""
    failed: bool
    """The driver has given up for good; it touches nothing any more, but `close` still works."""

    @property
    def opened(self) -> bool:
        """Whether it is between `open` and `close`."""

    @property
    def busy(self) -> bool:
        """Whether the device may still write guest memory; looks at the rings. False when closed or failed."""

    @property
    def idle(self) -> bool:
        """Whether it is not busy and nothing is left to check. True when closed or failed."""

    def boot(self, material: Material) -> None:
        """Lay out what the device works on, in the driver's area."""

    def open(self, mapper: DmaMapper) -> None:
        """Map the rings, program the device from its disabled state and start; work follows by steps.

        Raises:
            MapFailed: There is no room for the rings; the driver is closed, the device disabled, nothing is mapped.
        """

    def close(self) -> None:
        """Disable the device, then unmap whatever is mapped, rings included; closed already, it does nothing.

        Counters stay. The next `open` begins with empty rings.
        """

    def halt(self) -> None:
        """Give the device no more work, or let it receive no more; what came is still checked by steps."""

    def resume(self) -> None:
        """Take a halt back."""

    def interrupt(self) -> None:
        """Take an interrupt: the next step looks for what came."""

    def step(self, now_ns: int) -> int:
        """Work for at most about half a millisecond; return when the next step is due, NEVER until an interrupt."""

    def restart_clock(self) -> None:
        """Forget the clock: nothing is caught up after a pause, and rates are measured anew."""

    def rate(self, now_ns: int) -> float:
        """Return what the device wrote per second, over the last whole second."""

    def save(self) -> bytes:
        """Return everything beyond guest RAM, in canonical form, at most LARGEST_STATE bytes."""

    def load(self, state: bytes, mapper: DmaMapper) -> None:
        """Go on where another host's driver stopped, on the mapper that it was open on (if it was).

        The device is not touched: its own state moved too. An interrupt or a doorbell may have been under way, so the
        next step looks for answers and rings the doorbell; both do no harm when nothing is there.

        Raises:
            ProgressRefused: The bytes are no canonical state of this driver, or one that cannot be.
        """


class DriverModel(Protocol):
    """What the table of drivers holds: a driver's class."""

    def __call__(
        self, memory: GuestMemory, area: DeviceArea, port: DevicePort, *, rate: int, seed: int
    ) -> DeviceDriver:
        """Make a driver: closed, with nothing touched; `rate` is in bytes per second that the device writes."""
