"""The `[qemu]` table of a machine specification: a real QEMU, started from it or adopted.

::

    kind = "qemu"
    [memory]
    size = "2GiB"
    [qemu]
    binary = "qemu-system-x86_64"     # a name is looked for in PATH, on each host
    machine = "q35"                   # best with its version, pc-q35-7.2, which both hosts must know
    arguments = ["-cpu", "host", "-accel", "kvm", "-smp", "2"]
    adopt = "/run/qemu/web.qmp"       # a QEMU that runs already; what is above is what a destination starts then
    [[qemu.disk]]
    name = "root"
    file = "/srv/images/root.qcow2"
    format = "qcow2"
    shared = true                     # the same file, by the same name, at every host

Arguments are QEMU's own, one word each. What Viaduct sets itself is refused in them (vmm.assembly.qemu_conflicts).
"""

from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from vmm.assembly.field_kinds import AbsolutePath, Name, Table, Word

DiskFormat = Literal["raw", "qcow2"]
_MAX_ARGUMENTS: Final = 256
_MAX_DISKS: Final = 16


class DiskSpecification(Table):
    """A disk of the machine; `shared` says that every host has the same file by that name."""

    name: Name
    file: AbsolutePath
    format: DiskFormat = "raw"
    read_only: bool = False
    shared: bool = False


class QemuSpecification(Table):
    """How QEMU is started; or which one is adopted, and how a destination is started."""

    binary: Word = "qemu-system-x86_64"
    machine: Word = "q35"
    arguments: Annotated[tuple[Word, ...], Strict(strict=False), Field(max_length=_MAX_ARGUMENTS)] = ()
    disk: Annotated[tuple[DiskSpecification, ...], Strict(strict=False), Field(max_length=_MAX_DISKS)] = ()
    adopt: AbsolutePath | None = None
