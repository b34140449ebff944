"""The machines of a host, as its run directory shows them: run_dir/machines/<uuid>/.

::

    specification.json   what the machine was made from
    instance.json        which processes it is: boot id, pids, start times
    vmm.sock             the machine process's control socket
    vfio-host.sock       the host process
    out.sock, in.sock    what a machine that sends its own stream says to an agent, or is told by one
    *.log                what they had to say

A machine is alive when the processes that instance.json names live, by pid *and* start time; a pid alone may be
somebody else's by now.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.errors import MachineGone
from vmm.process.control import SPECIFICATION_FILE
from vmm.process.identity import boot_id

INSTANCE_FILE: Final = "instance.json"
OUT_SOCKET: Final = "out.sock"
IN_SOCKET: Final = "in.sock"


class ProcessId(msgspec.Struct, frozen=True):
    """A process, past any reuse of its pid."""

    pid: int
    started: int
    """Clock ticks since boot, field 22 of /proc/<pid>/stat."""


class Instance(msgspec.Struct, frozen=True):
    """The processes of one machine on one boot."""

    boot_id: str
    vmm: ProcessId
    host: ProcessId
    token: str
    """Drawn by the machine process itself."""

    @property
    def name(self) -> str:
        """The instance as journals and proofs name it."""
        return f"{self.boot_id}:{self.vmm.pid}:{self.vmm.started}:{self.token}"


@dataclass(frozen=True, slots=True)
class MachineDirectory:
    """One machine's folder."""

    machine: UUID
    path: Path

    def specification(self) -> bytes:
        """Return the specification as it was given.

        Raises:
            MachineGone: The folder holds none.
        """
        try:
            return (self.path / SPECIFICATION_FILE).read_bytes()
        except OSError as error:
            raise MachineGone(f"Machine {self.machine} has no specification in {self.path}: {error}") from error

    def instance(self) -> Instance | None:
        """Return which processes the machine is, or None when it never came up."""
        try:
            return msgspec.json.decode((self.path / INSTANCE_FILE).read_bytes(), type=Instance)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def write_instance(self, instance: Instance) -> None:
        """Record which processes the machine is; all or nothing."""
        temporary = self.path / (INSTANCE_FILE + ".new")
        temporary.write_bytes(msgspec.json.encode(instance))
        temporary.rename(self.path / INSTANCE_FILE)

    def alive(self) -> bool:
        """Tell whether the machine process lives, on this boot."""
        instance = self.instance()
        return instance is not None and instance.boot_id == boot_id() and lives(instance.vmm)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Keep everybody else from filling this folder or taking it away; false where somebody does so now.

        A process that dies gives its claim back; one that is frozen keeps it, and finds the folder as it left it.
        """
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield False
            return
        try:
            yield _locked(folder) and _is_at(folder, self.path)
        finally:
            os.close(folder)

    def exists(self) -> bool:
        """Tell whether the folder is there."""
        return self.path.is_dir()

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.path, ignore_errors=True)


class RunDirectory:
    """A host's machines."""

    def __init__(self, run_dir: Path) -> None:
        self._machines: Final = run_dir / "machines"

    def of(self, machine: UUID) -> MachineDirectory:
        """Return a machine's folder, whether or not it exists."""
        return MachineDirectory(machine, self._machines / str(machine))

    def of_text(self, machine: str) -> MachineDirectory:
        """Return the folder of a machine whose UUID a record or a checked request names."""
        return self.of(UUID(machine))

    def create(self, machine: UUID) -> MachineDirectory:
        """Make a machine's folder, which only this user can enter.

        Raises:
            FileExistsError: The machine has one already.
        """
        self._machines.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._machines.chmod(0o700)  # whoever made it before: sockets that command machines lie in it
        directory = self.of(machine)
        directory.path.mkdir(mode=0o700)
        return directory

    def all(self) -> Iterator[MachineDirectory]:
        """Yield every machine's folder."""
        if not self._machines.is_dir():
            return
        for path in sorted(self._machines.iterdir()):
            try:
                yield MachineDirectory(UUID(path.name), path)
            except ValueError:
                continue


def identify(pid: int) -> ProcessId:
    """Return a living process's identity.

    Raises:
        ProcessLookupError: There is no such process.
    """
    started = _started(pid)
    if started is None:
        raise ProcessLookupError(f"No process {pid}")
    return ProcessId(pid, started)


def lives(process: ProcessId) -> bool:
    """Tell whether that very process lives; one that has ended and waits to be reaped does not.

    One of which nothing can be learnt, for want of a descriptor as it may be, counts as living: nothing is concluded
    from an absence.
    """
    try:
        return _started(process.pid) == process.started
    except OSError:
        return True


def instance_lives(name: str) -> bool | None:
    """Tell whether the machine process lives whose `Instance.name` a journal holds; None when it holds none.

    The name says all: a folder that somebody took away proves nothing.
    """
    process = process_named(name)
    return None if process is None else name.startswith(f"{boot_id()}:") and lives(process)


def process_named(name: str) -> ProcessId | None:
    """Return the machine process that an `Instance.name` is of, of whichever boot; None where it names none."""
    parts = name.split(":")
    if len(parts) != 4 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return ProcessId(int(parts[1]), int(parts[2]))


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _started(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
