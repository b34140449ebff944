"""One QMP connection: a command, its answer, and the events between.

Promise: an answer belongs to the command that it is returned for. A QEMU that does not answer within the deadline, that
answers with something else than it should, or that is no QEMU at all is `MachineGone`, and the connection with it: an
answer that comes late is never heard. Whether the command happened is unknown then. Events are heard in the order in
which QEMU sent them, before the answer of a command that it sent after them.

A QEMU that is known to be busy is borne with (`bear`): it owes an answer then, and is asked nothing else until it came.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from qemu.qmp import ConnectError, EventListener, ExecuteError, Message, QMPClient, QMPError

from vfio_host.interface.channel import CREDENTIALS, reachable
from vm_migration.machine.errors import MachineGone, MachineRefused

DEADLINE: Final = 4.0
"""Seconds for a command, and for being greeted: below what an agent waits for a machine process."""
_END_DEADLINE: Final = 2.0
_BESIDE_DEADLINE: Final = 0.5
_BORNE_DEADLINE: Final = 1.0
_OWED_DEADLINE: Final = 0.1
"""For an answer that has not come in that second: whoever asks is told soon that QEMU is still silent."""
_quiet: Final = logging.getLogger("vm_migration.machine.qemu.qmp")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False

Answer = TypeVar("Answer")
Hear = Callable[[str], None]


class QemuSilent(MachineGone):
    """It owes an answer and is borne with: the connection stays, and later questions may be answered."""


class _Listener(EventListener):
    """Passes the names of events on as they come, and keeps none: nothing grows while nobody looks."""

    def __init__(self, hear: Hear) -> None:
        super().__init__()
        self._hear: Final = hear

    def accept(self, event: Message) -> bool:
        """Hear it, and have it put into no queue."""
        self._hear(str(event.get("event", "")))
        return False


class QmpSession:
    """A connection to one QEMU, made anew after it broke; `peer` is the process at the other end."""

    def __init__(self, path: Path, hear: Hear = lambda _event: None, *, deadline: float = DEADLINE) -> None:
        self.peer = 0
        self.when_silent: Callable[[], Awaitable[None]] | None = None
        """What is still done over a connection that is given up because QEMU does not answer."""
        self._path: Final = path
        self._hear: Final = hear
        self._deadline: Final = deadline
        self._client: QMPClient | None = None
        self._owed: asyncio.Task[object] | None = None
        self._borne_until = 0.0

    @property
    def connected(self) -> bool:
        """Whether the last command left a connection that the next one goes over."""
        return self._client is not None

    async def open(self) -> None:
        """Connect, be greeted and negotiate.

        Raises:
            MachineGone: Nobody listens there, or it does not speak QMP, or has another client.
        """
        await self.close()
        client = QMPClient()
        client.logger = _quiet
        client.register_listener(_Listener(self._hear))
        try:
            async with asyncio.timeout(self._deadline):
                connection = await self._connected()
                await client.connect(connection)
        except TimeoutError as error:
            await _end(client)
            text = "greets nobody: it is no QMP, QEMU hangs, or another client has it"
            raise MachineGone(f"QMP socket {self._path} {text}") from error
        except (OSError, ConnectError) as error:
            await _end(client)
            raise MachineGone(f"Nobody speaks QMP at {self._path}: {error!r}") from error
        self._client = client

    async def ask(
        self, command: str, kind: type[Answer], arguments: Mapping[str, object] | None = None, deadline: float = 0.0
    ) -> Answer:
        """Give a command and return its answer, which is of that kind.

        Raises:
            MachineRefused: QEMU refused, in its own words.
            MachineGone: It did not answer in time, or not as QEMU does; whether it happened is unknown.
            QemuSilent: It is borne with, and has not answered yet.
        """
        if self._client is None:
            raise MachineGone(f"No connection to QEMU at {self._path}")
        try:
            return msgspec.convert(await self._said(self._client, command, arguments, deadline or self._deadline), kind)
        except ExecuteError as error:
            raise MachineRefused(f"QEMU refuses {command}: {error.error.error.desc}") from error
        except msgspec.ValidationError as error:
            await self.close()
            raise MachineGone(f"QEMU answered {command} as none does: {error}") from error
        except TimeoutError as error:
            if self.when_silent is not None:
                await self.when_silent()
            await self.close()
            raise MachineGone(f"QEMU does not answer {command}") from error
        except (QMPError, OSError, EOFError) as error:
            await self.close()
            raise MachineGone(f"QEMU is gone in the middle of {command}: {error!r}") from error

    async def tell(self, command: str, arguments: Mapping[str, object] | None = None, deadline: float = 0.0) -> None:
        """Give a command of whose answer only success counts; raises as `ask`."""
        await self.ask(command, dict[str, object], arguments, deadline)

    async def tell_beside(self, command: str, arguments: Mapping[str, object]) -> None:
        """Give a command that is carried out beside whatever QEMU waits for (out of band); it may come to nothing.

        Source: QEMU's QMP specification, "Out-of-band execution". Who has just connected cannot do so: whatever QEMU
        waits for keeps it from taking its client in.
        """
        if self._client is None:
            return
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_BESIDE_DEADLINE):
                await self._client.execute(command, arguments, oob=True)

    def bear(self, seconds: float) -> None:
        """Bear with a QEMU that answers nothing, for so long from now on; 0: no longer.

        Whoever asks when that is over has done first what is done about a silent QEMU (`when_silent`).
        """
        self._borne_until = asyncio.get_running_loop().time() + seconds if seconds else 0.0

    async def close(self) -> None:
        """Let go of the connection; QEMU goes on."""
        client, self._client = self._client, None
        self._owed = None
        if client is not None:
            await _end(client)

    async def _said(
        self, client: QMPClient, command: str, arguments: Mapping[str, object] | None, deadline: float
    ) -> object:
        borne = asyncio.get_running_loop().time() < self._borne_until
        if self._owed is not None and not self._owed.done():  # QEMU keeps eight commands, and hears nothing beyond them
            if not borne and self.when_silent is not None:
                await self.when_silent()
            await _answered(self._owed, _OWED_DEADLINE if borne else deadline, borne=borne)
        if not borne:
            async with asyncio.timeout(deadline):
                return await client.execute(command, arguments)
        asking: asyncio.Task[object] = asyncio.create_task(client.execute(command, arguments), name=command)
        asking.add_done_callback(_heard)
        self._owed = asking
        await _answered(asking, min(deadline, _BORNE_DEADLINE), borne=True)
        return asking.result()

    async def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with reachable(self._path) as name:
                await asyncio.get_running_loop().sock_connect(connection, name)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            self.peer = CREDENTIALS.unpack(credentials)[0]
        except BaseException:
            connection.close()
            raise
        return connection


async def _answered(asking: "asyncio.Task[object]", seconds: float, *, borne: bool) -> None:
    await asyncio.wait((asking,), timeout=seconds)
    if asking.done():
        return
    if borne:
        raise QemuSilent(f"QEMU has not answered {asking.get_name()} yet")
    raise TimeoutError


def _heard(asking: "asyncio.Task[object]") -> None:
    """Take note of an answer for which nobody may wait any more."""
    if not asking.cancelled():
        asking.exception()


async def _end(client: QMPClient) -> None:
    """Disconnect, whatever has become of the other end: the library repeats there what has broken the connection."""
    with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
        async with asyncio.timeout(_END_DEADLINE):
            await client.disconnect()
