"""Several machine processes on a rehearsed host: what each calls is done to its own memory."""

from typing import Final

from lab.rehearsal.host_in_process import HostInProcess
from vfio_host.interface.calls import LockedMemory, Number
from vmm.update.adopted_host import AdoptedDescriptor
from vmm.vfio.host_port import Descriptor, OpenObject


class ProcessOnHost:
    """Implements `vmm.vfio.host_port.HostPort` for one of them, by its number."""

    def __init__(self, host: HostInProcess, number: int) -> None:
        self.number: Final = number
        self._host: Final = host

    def open(self, path: str) -> OpenObject:
        """Open a path.

        Raises:
            HostCallFailed: The host has none, or it is open already.
        """
        return self._host.open(path, self.number)

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        """Tell what lies at an address of this process."""
        self._host.register_memory(address, length, descriptor, self.number)

    def report_writes(self) -> bytes | None:
        """Return None: nobody bears witness here."""
        return self._host.report_writes()

    def copy_of(self, descriptor: Descriptor) -> Descriptor:
        """Return another process's descriptor as it is passed to this one."""
        while isinstance(descriptor, AdoptedDescriptor):
            descriptor = descriptor.inner
        return self._host.passed_to(descriptor, self.number)

    def locked_memory(self) -> int:
        """Return how much of this process's memory is locked because devices reach it, in bytes."""
        answer = self._host.connection(self.number).call(LockedMemory())
        return answer.value if isinstance(answer, Number) else 0
