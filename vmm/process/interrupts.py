"""The eventfds by which devices interrupt this machine: of the processes that have them, one may take what they raise.

An eventfd wakes one waiter. While two processes have a machine's eventfds, as in an update, the kernel keeps the second
from assigning them until the first has given them up (semantics 9.6): a guest that runs in two processes stops here.
"""

from collections.abc import Sequence
from typing import Final

from vfio_host.interface.calls import Irqfd
from vfio_host.interface.numbers import DEV_KVM
from vmm.vfio.host_port import Descriptor, HostCallFailed, HostPort

FIRST_GSI: Final = 24
"""The first that is not one of the IO-APIC's pins; each device's message has the next."""


class Interrupts:
    """Those of one machine, taken or given up together."""

    def __init__(self, host: HostPort, eventfds: Sequence[int]) -> None:
        self._host: Final = host
        self._eventfds: Final = tuple(eventfds)
        self._machine: Descriptor | None = None

    @property
    def taken(self) -> bool:
        """Whether they are this process's."""
        return self._machine is not None

    def take(self) -> None:
        """Take them, unless they are taken.

        Raises:
            HostCallFailed: Another process has one. None of them is taken.
        """
        if self._machine is not None:
            return
        machine = self._host.open(DEV_KVM).descriptor
        for index, eventfd in enumerate(self._eventfds):
            call = Irqfd(eventfd=0, gsi=FIRST_GSI + index)
            try:
                machine.call(call, (eventfd,))
            except HostCallFailed as error:
                machine.close()
                text = f"Another process takes the interrupts of this machine's device {index}: {error}"
                raise HostCallFailed(call, error.errno, text) from error
        self._machine = machine

    def give_up(self) -> None:
        """Give them up, unless they are: another process can take them when this returns."""
        if self._machine is None:
            return
        for index, eventfd in enumerate(self._eventfds):
            self._machine.call(Irqfd(eventfd=0, gsi=FIRST_GSI + index, assign=False), (eventfd,))
        self._machine.close()
        self._machine = None
