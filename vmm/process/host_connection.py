"""The host process as a machine process reaches it: `vmm.vfio.host_port` over sockets.

A call waits for its answer as a process waits in the kernel: without a deadline, until the host answers or is gone,
which its sockets tell. A host that is frozen, or short of time, must not cost the machine its memory; its agents have
deadlines of their own, and say that it does not answer.
"""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from vfio_host.interface import calls
from vfio_host.interface.answers import Answer, Data, Opened
from vfio_host.interface.calls import AnyCall, Batch, Open, RegisterMemory, ReportWrites
from vfio_host.interface.channel import Channel, ChannelError, close_all, connect
from vmm.vfio.host_port import HostCallFailed, HostGone, OpenObject, unless_failed

DEADLINE: Final = 10.0
"""Seconds for connecting."""


class SocketDescriptor:
    """Implements `vmm.vfio.host_port.Descriptor` on a connected socket."""

    def __init__(self, channel: Channel) -> None:
        self._channel: Final = channel

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> tuple[Answer, ...]:
        """Make calls in order."""
        answers, received = self._exchange(calls, descriptors)
        close_all(received)
        return answers

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        """Make one call."""
        return unless_failed(call, self.batch((call,), descriptors)[0])

    def open(self, call: AnyCall) -> OpenObject | None:
        """Make one call that answers with a new descriptor, or with none."""
        (answer,), received = self._exchange((call,), ())
        unless_failed(call, answer)
        if not isinstance(answer, Opened):
            close_all(received)
            return None
        if answer.descriptor >= len(received):
            close_all(received)
            raise HostGone(f"Host answered {type(call).__name__} with a descriptor that did not come along")
        close_all([number for index, number in enumerate(received) if index != answer.descriptor])
        return OpenObject(answer.id, descriptor_at(received[answer.descriptor]))

    def close(self) -> None:
        """Close this copy."""
        self._channel.close()

    def fileno(self) -> int:
        """Return the descriptor's number, for another process to be given it."""
        return self._channel.fileno()

    def _exchange(self, made: Sequence[AnyCall], descriptors: Sequence[int]) -> tuple[tuple[Answer, ...], list[int]]:
        try:
            self._channel.send(calls.encode(Batch(tuple(made))), descriptors)
            body, received = self._channel.receive()
            answers = calls.answers_decoder.decode(body).answers
        except (ChannelError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HostGone(f"Host process does not answer: {error}") from error
        if len(answers) != len(made):
            close_all(received)
            raise HostGone(f"Host answered {len(answers)} of {len(made)} calls")
        return answers, received


def descriptor_at(number: int) -> SocketDescriptor:
    """Return the open object of the host that a descriptor of this process is, which is owned from here on."""
    connection = socket.socket(fileno=number)
    connection.settimeout(None)
    return SocketDescriptor(Channel(connection))


class HostConnection:
    """Implements `vmm.vfio.host_port.HostPort`."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            HostGone: No host process listens there.
        """
        try:
            channel = connect(path, DEADLINE)
        except ChannelError as error:
            raise HostGone(str(error)) from error
        channel.set_deadline(None)
        self._root: Final = SocketDescriptor(channel)

    def open(self, path: str) -> OpenObject:
        """Open a path."""
        opened = self._root.open(Open(path=path))
        if opened is None:
            raise HostGone(f"Host answered the opening of {path} without a descriptor")
        return opened

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        """Tell what lies at a user address."""
        self._root.call(RegisterMemory(vaddr=address, length=length), (descriptor,))

    def report_writes(self) -> bytes | None:
        """Return the host process's witness."""
        try:
            answer = self._root.call(ReportWrites())
        except HostCallFailed:
            return None
        return bytes(answer.data) if isinstance(answer, Data) else None

    def close(self) -> None:
        """Close the connection; open objects stay open."""
        self._root.close()
