"""Two ways to the same host: a real process over descriptors, and its objects called directly."""

import os
import select
from collections.abc import Callable, Sequence
from typing import Protocol

from tests.vfio_host.host_process import DEADLINE, Client
from vfio_host.errors import CallRefused
from vfio_host.interface.calls import Answer, AnyCall, Failed, HostConfiguration, Open
from vfio_host.process.host import Host
from vfio_host.process.open_file import OpenFile, Opening, Received


class Handle(Protocol):
    """A descriptor of the host."""

    @property
    def id(self) -> int: ...

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer: ...

    def opened(self, call: AnyCall) -> "Handle": ...


class Kernel(Protocol):
    """A host that was just started."""

    @property
    def root(self) -> Handle: ...

    def settle(self, completions: int, eventfd: int) -> None:
        """Let the devices work until so many completions were raised."""


StartHost = Callable[[HostConfiguration], Kernel]


class DirectHandle:
    """An open file without a descriptor."""

    def __init__(self, file: OpenFile, number: int = 0) -> None:
        self.file = file
        self.id = number

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        try:
            answer = self.file.call(call, Received(descriptors))
        except CallRefused as refusal:
            return Failed(refusal.errno)
        assert not isinstance(answer, Opening)
        return answer

    def opened(self, call: AnyCall) -> "DirectHandle":
        answer = self.file.call(call, Received(()))
        assert isinstance(answer, Opening)
        return DirectHandle(answer.file, answer.id)


class DirectKernel:
    """The host's objects, stepped by the test."""

    def __init__(self, configuration: HostConfiguration) -> None:
        self.host = Host(configuration)
        self.root: Handle = DirectHandle(self.host.connect())

    def settle(self, completions: int, eventfd: int) -> None:
        for device in self.host.devices.values():
            device.take_doorbell()
            while device.has_work:
                device.step(0)
        assert os.eventfd_read(eventfd) == completions

    def close(self) -> None:
        for device in self.host.devices.values():
            device.forget_eventfds()


class ProcessHandle:
    """A descriptor of the process."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = client.id

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        return self.client.call(call, descriptors)

    def opened(self, call: AnyCall) -> "ProcessHandle":
        return ProcessHandle(self.client.opened(call))


class ProcessKernel:
    """The process, which steps its devices itself."""

    def __init__(self, client: Client) -> None:
        self.root: Handle = ProcessHandle(client)

    def settle(self, completions: int, eventfd: int) -> None:
        seen = 0
        while seen < completions:
            assert select.select([eventfd], [], [], DEADLINE)[0], "device raised too few completions"
            seen += os.eventfd_read(eventfd)
        assert seen == completions


def open_path(kernel: Kernel, path: str) -> Handle:
    return kernel.root.opened(Open(path=path))
