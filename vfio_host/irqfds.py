"""Which eventfd raises an interrupt of which virtual machine: the part of KVM that an update of a machine meets.

An eventfd wakes one waiter with its count, so it can raise an interrupt of one machine only: a second assignment is
refused while the first lives (KVM_IRQFD, kvm_irqfd_assign). Who hands a machine over therefore closes its own first.
"""

import errno
from typing import Final

from vfio_host.errors import CallRefused


class Irqfds:
    """The assignments of all virtual machines of a host, by the eventfds' own numbers."""

    def __init__(self) -> None:
        self._assigned: Final[dict[int, tuple[int, int]]] = {}

    def assign(self, machine: int, eventfd: int, gsi: int) -> None:
        """Have an eventfd raise an interrupt. EBUSY while it raises one already, of whichever machine."""
        if eventfd in self._assigned:
            raise CallRefused(errno.EBUSY, f"Eventfd {eventfd} raises an interrupt already")
        self._assigned[eventfd] = (machine, gsi)

    def give_up(self, machine: int, eventfd: int, gsi: int) -> None:
        """End an assignment. ENOENT when there is no such."""
        if self._assigned.get(eventfd) != (machine, gsi):
            raise CallRefused(errno.ENOENT, f"Eventfd {eventfd} does not raise interrupt {gsi} of this machine")
        del self._assigned[eventfd]

    def forget(self, machine: int) -> None:
        """End every assignment of a machine."""
        for eventfd in [each for each, (owner, _) in self._assigned.items() if owner == machine]:
            del self._assigned[eventfd]
