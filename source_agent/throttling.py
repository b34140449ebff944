"""The throttle of one attempt's machine: asked for, and asked for again, so that it holds while this agent lives.

A machine's process takes nothing from its vCPUs for longer than `THROTTLE_SECONDS` without being asked again. It gives
their time back by itself when the machine is stopped, its tracking ends, or whoever commands it goes.
"""

import asyncio
from typing import Final

from vm_migration.handover.custody import Custody
from vm_migration.machine.port import MachineError, MachineRefused
from vmm.process.control import THROTTLE_SECONDS

_AGAIN_EVERY: Final = THROTTLE_SECONDS / 5


class Throttling:
    """Holds what was taken last; `hold_on` must run meanwhile."""

    def __init__(self, custody: Custody) -> None:
        self.percent = 0
        self._custody: Final = custody

    async def take(self, percent: int) -> None:
        """Take so much of the vCPUs' time from here on.

        Raises:
            MachineError: It is not known whether the machine was throttled; if so, it is not for long.
        """
        if percent != self.percent:
            await self._custody.port.throttle(percent)
            self.percent = percent

    async def hold_on(self) -> None:
        """Ask again until the machine stands still, or is somebody else's, or this is cancelled."""
        while True:
            await asyncio.sleep(_AGAIN_EVERY)
            if not self.percent:
                continue
            try:
                await self._custody.port.throttle(self.percent)
            except MachineRefused:
                return
            except MachineError as error:
                del error  # whoever waits for the machine hears of it too; it may answer again
