"""Devices slowed down by holding their DMA for a slice of each period (vmm.vfio.quiesce_slices).

::

    in pre-copy   PRE_COPY <-> PRE_COPY_P2P       its stream goes on
    otherwise     RUNNING  <-> RUNNING_P2P

A device in a P2P state starts no access to its peers, and one that cannot tell those from others starts none at all
(linux/vfio.h); registers and doorbells are taken, and what they ask for is done when it works again. A device that can
tell them apart writes RAM on: nothing is gained, which the rounds show. A device without these states goes on at full
speed. One that refuses a transition is not asked again in this attempt: it goes on at full speed too, and the attempt
goes on. Only where it loses its pre-copy by that is its stream of no use, which whoever reads it is told.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio.device import VfioDevice
from vmm.vfio.device_migration import change
from vmm.vfio.host_port import HostCallFailed
from vmm.vfio.quiesce_slices import QuiesceSlices

_HOLD: Final = {
    DeviceState.RUNNING: DeviceState.RUNNING_P2P,
    DeviceState.PRE_COPY: DeviceState.PRE_COPY_P2P,
}
_WAKE: Final = {quiesced: working for working, quiesced in _HOLD.items()}
_PRE_COPY: Final = (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P)
_MOST_TOLD: Final = 64


class DeviceThrottle:
    """Holds and wakes all devices of a machine that can be held, together."""

    def __init__(self, devices: Sequence[VfioDevice]) -> None:
        self._devices: Final = tuple(devices)
        self._able: Final = tuple(device for device in devices if MigrationFlags.P2P in device.flags)
        self._refusing: set[str] = set()
        self._slices = QuiesceSlices()
        self._quiesced = False
        self._failures: list[str] = []
        self.lost: HostCallFailed | None = None
        """What cost a device its pre-copy in this attempt; its stream is of no use then."""

    @property
    def slowed(self) -> tuple[str, ...]:
        """The devices that are held when some of their time is taken."""
        return tuple(device.name for device in self._willing)

    @property
    def at_full_speed(self) -> tuple[str, ...]:
        """The devices that know no P2P states, and those that refused one."""
        return tuple(device.name for device in self._devices if device.name not in self.slowed)

    def percent(self, now_ns: int) -> int:
        """Return how much of the devices' time is taken."""
        return self._slices.percent(now_ns) if self._willing else 0

    def begin_anew(self) -> None:
        """Wake all devices, and ask again those that refused: another attempt begins."""
        self.end()
        self._refusing.clear()
        self.lost = None

    def take(self, percent: int, now_ns: int, until_ns: int) -> None:
        """Take so much of the devices' time until a moment; 0 gives it back at once."""
        self._slices = self._slices.asked(percent, now_ns, until_ns)
        self.step(now_ns)

    def step(self, now_ns: int) -> int | None:
        """Hold or wake devices as the time asks for; return when to come again, None where nothing is taken."""
        wanted = self._slices.quiesced(now_ns)
        if wanted != self._quiesced:
            self._quiesced = wanted
            for device in self._willing if wanted else self._able:
                self._move(device, _HOLD if wanted else _WAKE)
        return self._slices.next_change(now_ns)

    def end(self) -> None:
        """Give all time back: every device works when this returns."""
        self._slices = QuiesceSlices()
        self.step(0)

    def leave(self) -> None:
        """Take no more time and wake nobody: the devices are being stopped, which begins with holding them."""
        self._slices, self._quiesced = QuiesceSlices(), False

    def take_failures(self) -> list[str]:
        """Return what devices refused since the last call."""
        failures, self._failures = self._failures, []
        return failures

    @property
    def _willing(self) -> tuple[VfioDevice, ...]:
        return tuple(device for device in self._able if device.name not in self._refusing)

    def _move(self, device: VfioDevice, ways: Mapping[DeviceState, DeviceState]) -> None:
        before: DeviceState | None = None
        try:
            before = device.state
            if before in ways:
                change(device, ways[before], before if before in _HOLD else DeviceState.RUNNING)
        except HostCallFailed as error:
            self._refuse(device, error, in_precopy=before in _PRE_COPY)

    def _refuse(self, device: VfioDevice, error: HostCallFailed, *, in_precopy: bool) -> None:
        self._refusing.add(device.name)
        if len(self._failures) < _MOST_TOLD:
            self._failures.append(f"Device {device.name} is throttled no more: {error}")
        try:
            if in_precopy and device.state not in _PRE_COPY:
                self.lost = error
        except HostCallFailed:
            self.lost = error
