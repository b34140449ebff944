"""What a host holds of machines that no journal of it accounts for: run folders, and living processes.

::

    folder      its journal says that the machine is not here, or there is none, and nobody is starting it
    vmm,        its command line names this run directory, and no instance.json lists it;
    vfio-host   or one does, in such a folder
    qemu        it works in a folder of this run directory, and is told that machine's UUID; likewise

A journal that cannot be read accounts for its machine: nothing is concluded from an absence. A machine that is being
created has a folder before it has a journal; its processes are listed once they are up.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError
from vm_migration.handover.journals import Journals
from vm_migration.handover.states import ABSENT
from vm_migration.handover.succession import update_of
from vm_migration.machine.hypervisor import Hypervisor
from vm_migration.machine.qemu.process_file import working_below
from vm_migration.machine.run_directory import Instance, ProcessId, lives

LAUNCH_SECONDS: Final = 120.0
"""A folder without instance.json that is younger is being filled."""
_KINDS: Final = {
    "vmm.process.main": "vmm",
    "viaduct-vmm": "vmm",
    "vfio_host.process.main": "vfio-host",
    "viaduct-vfio-host": "vfio-host",
    "vm_migration.machine.qemu.shim": "qemu-shim",
    "viaduct-qemu-shim": "qemu-shim",
}


@dataclass(frozen=True, slots=True)
class MachineProcess:
    """A living process that works for a machine, as its command line says, or where it works."""

    pid: int
    kind: str
    machine: str
    path: str


def leftovers(journals: Journals, hypervisor: Hypervisor, run_dir: Path) -> list[types_pb2.Leftover]:
    """Return what is left over at this moment; blocks for as long as /proc takes."""
    # The processes first: one that is launched after they were read must not be missed in a folder read before.
    processes = list(machine_processes(run_dir))
    known = frozenset(journals.machines())
    listed: dict[str, Instance | None] = {}
    launching: set[str] = set()
    found = []
    for place in hypervisor.all():
        machine = str(place.machine)
        instance = place.instance()
        if instance is None and _young(place.path):
            launching.add(machine)
        elif machine in known and _here(journals, machine):
            listed[machine] = instance
        else:
            found.append(types_pb2.Leftover(machine=machine, kind="folder", path=str(place.path)))
    for process in processes:
        if process.machine in listed and process.kind == "vmm" and _updating(journals, process.machine):
            continue  # of the two that have the machine in turn, one is listed
        if process.machine not in launching and not _listed(process.pid, listed.get(process.machine)):
            leftover = types_pb2.Leftover(
                machine=process.machine, kind=process.kind, pid=process.pid, path=process.path
            )
            found.append(leftover)
    return found


def machine_processes(run_dir: Path) -> Iterator[MachineProcess]:
    """Yield the living processes whose command line names a machine's folder of this run directory, and its QEMUs."""
    root = f"{run_dir}/machines/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        words = _words(entry)
        kind = next((_KINDS[name] for word in words[:3] if (name := Path(word).name) in _KINDS), None)
        place = next((word for word in words if word.startswith(root)), "")
        machine = _uuid(place.removeprefix(root).partition("/")[0])
        if kind is not None and machine is not None:
            yield MachineProcess(int(entry.name), kind, machine, f"{root}{machine}")
    for process, of_machine in working_below(run_dir / "machines"):
        yield MachineProcess(process.pid, "qemu", str(of_machine), f"{root}{of_machine}")


def _words(entry: Path) -> list[str]:
    """Return a process's command line; one that has ended, reaped or not, has none."""
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _here(journals: Journals, machine: str) -> bool:
    try:
        return journals.read_last(machine).state not in ABSENT
    except MigrationError:
        return True


def _updating(journals: Journals, machine: str) -> bool:
    try:
        record = journals.read_last(machine)
    except MigrationError:
        return False
    return not record.closed and update_of(record) is not None


def _listed(pid: int, instance: Instance | None) -> bool:
    named: Mapping[int, ProcessId] = {} if instance is None else {one.pid: one for one in (instance.vmm, instance.host)}
    return pid in named and lives(named[pid])


def _young(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_ctime < LAUNCH_SECONDS
    except OSError:  # it went in between
        return True


def _uuid(text: str) -> str | None:
    try:
        return text if str(UUID(text)) == text else None
    except ValueError:
        return None
