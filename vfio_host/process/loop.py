"""The host's one thread: devices step, and between their steps calls are answered.

::

    +--> wait: until the next device is due, or for any descriptor ----------+
    |    |                                                                    |
    |    +-- listening socket: a new connection                               |
    |    +-- connection or open file: one batch of calls, executed in order, answered
    |    '-- doorbell: its device looks at its ring                           |
    '----- one step of each device that is due (at most a millisecond) <------'

Calls never run beside a step, so a dirty bitmap that is read sees all of a step or none of it. Every socket is
non-blocking: a peer that is slow or malformed costs its own channel only. The loop ends when it is told to, or when
it has had a connection and nothing is connected or open any more: its machine is gone.
"""

import contextlib
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from vfio_host.devices.hardware import NEVER
from vfio_host.interface.channel import ChannelError, same_user
from vfio_host.process.batch import answer
from vfio_host.process.connection import Connection
from vfio_host.process.host import Host
from vfio_host.process.open_file import OpenFile
from vfio_host.process.passthrough import PassthroughDevice

_WORD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class _Served:
    """A socket and the open file behind it."""

    connection: Connection
    file: OpenFile


class HostLoop:
    """Serves a host on a listening socket until it is stopped or its machine is gone."""

    def __init__(self, host: Host, listener: socket.socket, wakeup: socket.socket) -> None:
        """Begin to listen; a byte on `wakeup` ends the loop, which is how a signal does it."""
        self._host: Final = host
        self._listener: Final = listener
        self._selector: Final = selectors.DefaultSelector()
        self._served: dict[int, _Served] = {}
        self._had_connection = False
        self._stopped = False
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # before anybody can have been accepted
        self._watch(listener, self._accept)
        self._watch(wakeup, self._stop)
        for device in host.devices.values():
            device.watcher = self

    def hold(self, descriptor: int) -> None:
        """Serve until a word comes on a pipe, and on from there; end where the pipe ends without one."""
        self._watch(descriptor, self._heard)

    def run(self) -> None:
        """Serve until the end; then every file is released and every descriptor of the loop closed."""
        devices = tuple(self._host.devices.values())
        try:
            while not self._stopped and (self._served or not self._had_connection):
                for key, events in self._selector.select(_wait(devices)):
                    if self._selector.get_map().get(key.fd) is key:  # not dropped by an event before this one
                        action: Callable[[int, int], None] = key.data
                        action(key.fd, events)
                for device in devices:
                    device.step(time.monotonic_ns())
        finally:
            for descriptor in tuple(self._served):
                self._drop(descriptor)
            self._selector.close()

    def _watch(self, watched: socket.socket | int, action: Callable[[int, int], None]) -> None:
        self._selector.register(watched, selectors.EVENT_READ, action)

    def _heard(self, descriptor: int, _events: int) -> None:
        self._selector.unregister(descriptor)
        self._stopped = self._stopped or not os.read(descriptor, _WORD_BYTES)

    def _stop(self, _descriptor: int, _events: int) -> None:
        self._stopped = True

    def _accept(self, _descriptor: int, _events: int) -> None:
        with contextlib.suppress(OSError):  # the client has gone again, or there are no descriptors for now
            connection, _ = self._listener.accept()
            if not same_user(connection):
                connection.close()
                return
            self._had_connection = True
            self._serve(connection, self._host.connect())

    def _publish(self, file: OpenFile) -> int:
        """Serve a new open file, and return the client's end of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._serve(ours, file)
        return theirs.detach()

    def _serve(self, connection: socket.socket, file: OpenFile) -> None:
        self._served[connection.fileno()] = _Served(Connection(connection), file)
        self._watch(connection, self._ready)

    def _ready(self, descriptor: int, events: int) -> None:
        try:
            self._exchange(self._served[descriptor], events)
        except (ChannelError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if not isinstance(error, ChannelError):
                sys.stderr.write(f"A client sent what is no batch of calls: {error}\n")
            self._drop(descriptor)

    def _exchange(self, served: _Served, events: int) -> None:
        connection = served.connection
        was_sending = connection.sending
        if events & selectors.EVENT_WRITE:
            connection.flush()
        elif (message := connection.receive()) is not None:
            connection.send(*answer(served.file, *message, self._publish, connection.caller))
        if connection.sending != was_sending:
            wanted = selectors.EVENT_WRITE if connection.sending else selectors.EVENT_READ
            self._selector.modify(connection, wanted, self._ready)

    def _drop(self, descriptor: int) -> None:
        served = self._served.pop(descriptor)
        self._selector.unregister(served.connection)
        served.connection.close()
        if all(each.file is not served.file for each in self._served.values()):
            served.file.release()

    def watch_doorbell(self, device: PassthroughDevice, descriptor: int) -> None:
        """Wait for a device's doorbell too."""
        self._watch(descriptor, lambda _descriptor, _events: device.take_doorbell())

    def unwatch_doorbell(self, descriptor: int) -> None:
        """Wait for a doorbell no more; it is still open."""
        self._selector.unregister(descriptor)


def _wait(devices: Sequence[PassthroughDevice]) -> float | None:
    """Return for how many seconds there is nothing to do but to answer; None for as long as nobody asks."""
    due = min((device.due_ns for device in devices), default=NEVER)
    if due == NEVER:
        return None
    return max(0, due - time.monotonic_ns()) / 1e9 if due else 0
