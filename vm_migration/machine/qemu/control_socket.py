"""The control socket of a QEMU machine: vmm.process.control's requests, each connection served by a task.

A peer that stops in the middle of a message is cut off after a second, as by vmm.process.server. Where QEMU did not
answer, the connection is closed without an answer: whoever asked knows as little as this process.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from vfio_host.interface.channel import Channel, ChannelError, close_all, listen, same_user
from vm_migration.machine.errors import MachineError
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.descriptor_wait import readable
from vmm.process import control
from vmm.process.controllers import Controller

_PEER_DEADLINE: Final = 1.0
_CONNECTIONS: Final = 32


class ControlSocket:
    """Serves one machine at a path, until the task that runs it is cancelled."""

    def __init__(self, commands: QemuCommands, path: Path, tell: Callable[[str], None]) -> None:
        """`tell` hears what QEMU did not answer."""
        self._commands: Final = commands
        self._listener: Final = listen(path)
        self._tell: Final = tell
        self._open = 0

    async def serve(self) -> None:
        """Take connections in, for ever."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await loop.sock_accept(self._listener)
                if self._open >= _CONNECTIONS or not same_user(connection):
                    connection.close()
                    continue
                self._open += 1
                group.create_task(self._serve_one(connection), name="control connection")

    def close(self) -> None:
        """Take no more connections in."""
        self._listener.close()

    async def _serve_one(self, connection: socket.socket) -> None:
        connection.settimeout(_PEER_DEADLINE)
        channel, controller = Channel(connection), Controller()
        try:
            with contextlib.suppress(ChannelError, msgspec.DecodeError, UnicodeDecodeError):
                while True:
                    await readable(channel.fileno())
                    await self._serve_request(channel, controller)
        except MachineError as error:
            self._tell(str(error))
        finally:
            channel.close()
            self._open -= 1

    async def _serve_request(self, channel: Channel, controller: Controller) -> None:
        body, descriptors = channel.receive()
        close_all(descriptors)
        reply, given = await self._commands.serve(controller, control.request_decoder.decode(body))
        try:
            channel.send(control.encode(reply), given)
        finally:
            close_all(given)
