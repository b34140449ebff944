"""The throttles of one attempt's machine: asked for, and asked for again, so that they hold while this agent lives.

A machine's process takes nothing from its vCPUs and devices for longer than `THROTTLE_SECONDS` without being asked
again. It gives their time back by itself when the machine is stopped, its tracking ends, or whoever commands it goes.
"""

import asyncio
from typing import Final

from vm_migration.handover.custody import Custody
from vm_migration.machine.errors import MachineError, MachineRefused
from vmm.process.control import THROTTLE_SECONDS, Description, ThrottledDevices

_AGAIN_EVERY: Final = THROTTLE_SECONDS / 5
SENDS: Final = "sends memory while the machine runs"


def while_taken(*times: str) -> str:
    """Say that memory is sent, and what is taken for it of whose time."""
    text = f"{SENDS}, with {' and '.join(times)} taken" if times else SENDS
    return f"{text}: it does not converge"


def of_vcpus(percent: int) -> str:
    """Name a share of the vCPUs' time."""
    return f"{percent} % of its vCPUs' time"


class Throttling:
    """Holds what was taken last; `hold_on` must run meanwhile."""

    def __init__(self, custody: Custody) -> None:
        self._custody: Final = custody
        self._vcpus, self._devices = 0, 0
        self._said: Description | None = None

    def heard(self, description: Description) -> None:
        """Take notice of what the machine says of itself: what of it can be throttled."""
        self._said = description

    @property
    def vcpus(self) -> int | None:
        """What is taken from the vCPUs' time, in percent; None of a machine that came before throttles."""
        return None if self._said is None or self._said.throttle_percent is None else self._vcpus

    @property
    def devices(self) -> int | None:
        """What is taken from the devices' time; None where none can be held, or nothing would be seen of it.

        A tracker that reports all that is mapped reports it of a device that stands, too.
        """
        known = self._known_devices
        if self._said is None or known is None or not known.slowed or not self._said.tracking.exact:
            return None
        return self._devices

    async def take(self, vcpus: int, devices: int) -> bool:
        """Take so much of the vCPUs' and of the devices' time from here on; return whether that is a change.

        Raises:
            MachineError: It is not known whether the machine was throttled; if so, it is not for long.
        """
        before = (self._vcpus, self._devices)
        if vcpus != self._vcpus:
            await self._custody.port.throttle(vcpus)
            self._vcpus = vcpus
        if devices != self._devices:
            if self.devices is not None:  # all may have refused meanwhile: nobody is held then
                await self._custody.port.throttle_devices(devices)
            self._devices = devices
        return before != (vcpus, devices)

    def reason(self, *, of_devices: bool) -> str:
        """Say what is taken, and where it is `of_devices` that it does not converge, which go on at full speed."""
        known, taken = self._known_devices, []
        if self._vcpus:
            taken.append(of_vcpus(self._vcpus))
        if self._devices and known is not None:
            taken.append(f"{self._devices} % of the time of {', '.join(known.slowed)}")
        unheld = f", and {', '.join(self._unheld)} cannot be held" if of_devices and self._unheld else ""
        return f"{while_taken(*taken)}{unheld}"

    async def hold_on(self) -> None:
        """Ask again until the machine stands still, or is somebody else's, or this is cancelled."""
        while True:
            await asyncio.sleep(_AGAIN_EVERY)  # what was taken ends by itself, and is asked for again
            try:
                if self._vcpus:
                    await self._custody.port.throttle(self._vcpus)
                if self._devices:
                    await self._custody.port.throttle_devices(self._devices)
            except MachineRefused:
                return
            except MachineError as error:
                del error  # whoever waits for the machine hears of it too; it may answer again

    @property
    def _known_devices(self) -> ThrottledDevices | None:
        return None if self._said is None else self._said.device_throttle

    @property
    def _unheld(self) -> tuple[str, ...]:
        """Devices that go on at full speed whatever is asked for."""
        known = self._known_devices
        if known is None:
            return ()
        return known.at_full_speed if self.devices is not None else (*known.slowed, *known.at_full_speed)
