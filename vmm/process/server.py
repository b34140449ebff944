"""The machine process's loop: guest steps, interrupts, and the control socket, on one thread.

A request is served between two steps, which are at most a millisecond long: that is the order on which dirty
tracking relies. A peer that stops in the middle of a message is cut off after a second at most, so the guest never
stands still for longer on behalf of one.
"""

import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from vfio_host.interface.channel import Channel, ChannelError, close_all, listen, same_user
from vmm.process import control
from vmm.process.commands import Commands
from vmm.process.controllers import Controller

_PEER_DEADLINE: Final = 1.0
_CONNECTIONS: Final = 32
_WORD_BYTES: Final = 64


class MachineServer:
    """Serves one machine until it is destroyed or told to stop."""

    def __init__(
        self, commands: Commands, path: Path, tell: Callable[[Sequence[str]], None] = lambda _texts: None
    ) -> None:
        """Listen at a path; `tell` hears what the host refused."""
        self._commands: Final = commands
        self._tell: Final = tell
        self._machine: Final = commands.machine
        self._selector: Final = selectors.DefaultSelector()
        self._listener: Final = listen(path)
        self._channels: Final[dict[Channel, Controller]] = {}
        self._wake: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watch(self._wake, lambda: None)
        self._watch(self._listener.fileno(), self._accept)
        self._takes_interrupts = False

    def run(self) -> None:
        """Serve until the machine is destroyed.

        Raises:
            HostGone: The host process died, and the machine's devices with it.
        """
        due = 0
        while not self._commands.ended:
            self._follow_interrupts()
            wait = max(0.0, (due - time.monotonic_ns()) / 1e9) if self._machine.running else None
            for key, _ in self._selector.select(wait):
                action: Callable[[], None] = key.data
                action()
            if self._machine.running:
                due = self._commands.step()
            self._tell(self._machine.take_failures())

    def hold(self, descriptor: int) -> None:
        """Serve until a word comes on a pipe, and on from there; end where the pipe ends without one."""

        def heard() -> None:
            self._selector.unregister(descriptor)
            if not os.read(descriptor, _WORD_BYTES):
                self._tell(("Whoever started this machine was gone before it was known to anybody else",))
                self._commands.ended = True

        self._watch(descriptor, heard)

    def stop(self) -> None:
        """End the loop at its next turn; safe in a signal handler."""
        self._commands.ended = True
        os.eventfd_write(self._wake, 1)  # a select that waits for ever is taken up again after a signal

    def close(self) -> None:
        """Close every socket."""
        for channel in list(self._channels):
            self._drop(channel)
        self._listener.close()
        self._selector.close()
        os.close(self._wake)

    def _watch(self, descriptor: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def _follow_interrupts(self) -> None:
        """Wait for devices' completions while they are this process's, and leave them alone otherwise."""
        if self._takes_interrupts == self._commands.owns_interrupts:
            return
        self._takes_interrupts = not self._takes_interrupts
        for index, assembled in enumerate(self._machine.devices):
            if self._takes_interrupts:
                self._watch(assembled.completion, self._interrupt(index, assembled.completion))
            else:
                self._selector.unregister(assembled.completion)

    def _interrupt(self, index: int, completion: int) -> Callable[[], None]:
        def deliver() -> None:
            try:
                os.eventfd_read(completion)
            except BlockingIOError:
                return
            if self._machine.running:
                self._machine.interrupt(index)

        return deliver

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # nobody is there any more, or no descriptor is left: the guest goes on all the same
            return
        if len(self._channels) >= _CONNECTIONS or not same_user(connection):
            connection.close()
            return
        self._serve_on(connection, Controller(descriptor=connection.fileno()))

    def go_on(self, asker: Controller, answer: control.AnyReply) -> None:
        """Serve a connection that the image before had, and answer what was asked on it."""
        os.set_inheritable(asker.descriptor, False)
        channel = self._serve_on(socket.socket(fileno=asker.descriptor), asker)
        try:
            channel.send(control.encode(answer))
        except ChannelError:
            self._drop(channel)

    def _serve_on(self, connection: socket.socket, controller: Controller) -> Channel:
        connection.settimeout(_PEER_DEADLINE)
        channel = Channel(connection)
        self._channels[channel] = controller
        self._watch(channel.fileno(), lambda: self._serve(channel))
        return channel

    def _serve(self, channel: Channel) -> None:
        try:
            body, descriptors = channel.receive()
            close_all(descriptors)
            request = control.request_decoder.decode(body)
        except (ChannelError, msgspec.DecodeError, UnicodeDecodeError):
            self._drop(channel)
            return
        reply, given = self._commands.serve(self._channels[channel], request)
        try:
            channel.send(control.encode(reply), given)
        except ChannelError:
            self._drop(channel)

    def _drop(self, channel: Channel) -> None:
        self._selector.unregister(channel.fileno())
        channel.close()
        self._commands.left(self._channels.pop(channel))
