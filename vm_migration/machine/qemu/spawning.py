"""A QEMU process: started here, or found behind a QMP socket and adopted."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from vfio_host.interface.channel import listen
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.qemu.answers import MemorySize, Uuid
from vm_migration.machine.qemu.command_line import Order, command_line
from vm_migration.machine.qemu.descriptor_wait import readable
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.process_file import note_started
from vm_migration.machine.qemu.run_states import stands_still
from vm_migration.machine.qemu.streaming import under_way
from vm_migration.machine.run_directory import ProcessId, identify, lives
from vmm.assembly.specification import MachineSpecification

QMP_SOCKET: Final = "qmp.sock"
QEMU_LOG: Final = "qemu.log"
_TAIL: Final = 400


class QemuProcess:
    """A QEMU that runs; `child` is None for one that somebody else started."""

    def __init__(self, identity: ProcessId, qmp: Path, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.id: Final = identity
        self.qmp: Final = qmp
        self.known = False
        """Somebody else knows of it by now: it outlives this process."""
        self._child: Final = child

    async def end(self) -> None:
        """Wait until it has ended."""
        try:
            descriptor = os.pidfd_open(self.id.pid)
        except ProcessLookupError:  # it was nobody's child here, or is reaped
            return
        try:
            if lives(self.id):
                await readable(descriptor)
        finally:
            os.close(descriptor)
        self._reap()

    def abandon(self) -> None:
        """End it at once where it was started here, and nobody knows of it."""
        if self._child is not None and not self.known:
            self._child.kill()
            self._reap()

    def kill(self) -> None:
        """End it at once, whoever started it."""
        if lives(self.id):
            with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
                os.kill(self.id.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()


async def require_fit(monitor: Monitor, specification: MachineSpecification, machine: UUID, *, adopts: bool) -> bool:
    """Check that a QEMU is what its specification says, and return whether it carries the machine's UUID.

    Raises:
        LaunchFailed: Its memory is of another size; or it was adopted, and stands still, or is being migrated.
        MachineGone: It does not answer.
    """
    size = (await monitor.session.ask("query-memory-size-summary", MemorySize)).base_memory
    if size != specification.memory.size:
        raise LaunchFailed(f"QEMU has {size} bytes of memory, and memory.size says {specification.memory.size}")
    status, migration = await monitor.status(), await monitor.migration()
    if adopts and (stands_still(status) or under_way(migration)):
        raise LaunchFailed(f"QEMU is {status.status}: only one that runs, and is not being migrated, is adopted")
    return (await monitor.session.ask("query-uuid", Uuid)).uuid == str(machine)


def start(order: Order) -> QemuProcess:
    """Start a QEMU in a machine's folder, stopped, with its QMP at a socket there.

    Raises:
        LaunchFailed: It cannot be started.
    """
    qmp = order.folder / QMP_SOCKET
    with listen(qmp) as listener, (order.folder / QEMU_LOG).open("ab") as log:
        listener.setblocking(True)
        child = _started(command_line(order, listener.fileno()), order.folder, listener, log.fileno())
    identity = identify(child.pid)
    note_started(order.folder, identity)
    return QemuProcess(identity, qmp, child)


def adopted(pid: int, qmp: Path) -> QemuProcess:
    """Return the QEMU that listens at a QMP socket.

    Raises:
        LaunchFailed: The process at the other end is none.
    """
    try:
        program = Path(f"/proc/{pid}/comm").read_text().strip()
        identity = identify(pid)
    except (OSError, ProcessLookupError) as error:
        raise LaunchFailed(f"Process {pid} that holds {qmp} cannot be looked at: {error}") from error
    if not program.startswith("qemu"):
        raise LaunchFailed(f"{qmp} is held by {program} ({pid}), and not by QEMU itself: it cannot be watched")
    return QemuProcess(identity, qmp)


def _started(words: Sequence[str], folder: Path, listener: socket.socket, log: int) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            words,
            cwd=folder,  # its stream's sockets are named relative to it: their paths are short then
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )
    except OSError as error:
        raise LaunchFailed(f"{words[0]} cannot be started: {error}") from error


def log_tail(folder: Path) -> str:
    """Return the last that QEMU had to say, after a colon; nothing where it was silent."""
    try:
        text = (folder / QEMU_LOG).read_text(errors="replace").strip()
    except OSError:
        return ""
    return f": {text[-_TAIL:]}" if text else ""
