"""The open file of a virtual machine: what /dev/kvm and KVM_CREATE_VM come to, as far as devices need it."""

from typing import Final

from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Done
from vfio_host.irqfds import Irqfds
from vfio_host.process.eventfds import eventfd_id
from vfio_host.process.open_file import OpenFile, Received, no_such_call


class MachineFile(OpenFile):
    """A virtual machine; closing it gives up the eventfds that raise its interrupts."""

    def __init__(self, number: int, irqfds: Irqfds) -> None:
        self._number: Final = number
        self._irqfds: Final = irqfds

    def call(self, call: AnyCall, received: Received) -> Answer:
        """Assign an eventfd to an interrupt, or give it up."""
        if not isinstance(call, calls.Irqfd):
            raise no_such_call(self, call)
        change = self._irqfds.assign if call.assign else self._irqfds.give_up
        change(self._number, eventfd_id(received.at(call.eventfd)), call.gsi)
        return Done()

    def release(self) -> None:
        """Close the machine."""
        self._irqfds.forget(self._number)
