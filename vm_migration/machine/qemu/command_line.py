"""How a QEMU is started from a specification. Pure.

RAM is a memfd that is shared, so that agents can hash it through the process's own descriptor. It starts stopped (-S):
what runs it is a `cont`, after the fence. A destination waits for its stream (-incoming defer), with its RAM touched
beforehand, since the first touch costs about 10 us a page on nested hosts. `-no-shutdown`: a guest that switches itself
off leaves a machine that stands still, and no hole. Images are locked, as a second fence: two processes that have one
open for writing are one too many.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from vmm.assembly.qemu_specification import DiskSpecification, QemuSpecification
from vmm.assembly.specification import MachineSpecification

RAM: Final = "pc.ram"
"""What a PC's RAM is called where nobody names it: a stream says it, so one that was adopted fits into one of ours."""
_QMP: Final = "viaduct-qmp"
_TOUCHING_THREADS: Final = 4
"""That touch a destination's RAM, and no more than the host has processors: QEMU sees to that. One touches 2 GiB in
1.2 to 1.8 s where they cost least, and a source waits for it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A machine that is to be there: the program that it is here, its folder, and what it is made from."""

    program: str
    folder: Path
    machine: UUID
    specification: MachineSpecification
    qemu: QemuSpecification
    incoming: bool
    adopts: Path | None
    """The QMP socket of the QEMU that is adopted; None where one is started here, as a destination always does."""


def command_line(order: Order, qmp_descriptor: int) -> tuple[str, ...]:
    """Return the words that start a QEMU whose QMP listens on a socket that it inherits."""
    specification, qemu, size = order.specification, order.qemu, order.specification.memory.size
    prealloc = f",prealloc=on,prealloc-threads={_TOUCHING_THREADS}" if order.incoming else ""
    return (
        order.program,
        "-name", f"guest={specification.name}",
        "-uuid", str(order.machine),
        "-S", "-no-user-config", "-nodefaults", "-display", "none", "-no-shutdown",
        "-object", f"memory-backend-memfd,id={RAM},size={size},share=on{prealloc}",
        "-machine", f"{qemu.machine},memory-backend={RAM}",
        "-m", f"{size >> 20}M",
        "-chardev", f"socket,id={_QMP},fd={qmp_descriptor},server=on,wait=off",
        "-mon", f"chardev={_QMP},mode=control",
        *(word for number, disk in enumerate(qemu.disk) for word in _disk(number, disk)),
        *qemu.arguments,
        *(("-incoming", "defer") if order.incoming else ()),
    )  # fmt: skip


def _disk(number: int, disk: DiskSpecification) -> Iterator[str]:
    node = f"viaduct-disk{number}"  # QEMU's names are short, and those of a specification may not be
    read_only = f"read-only={'on' if disk.read_only else 'off'}"
    yield "-blockdev"
    yield f"driver=file,node-name={node}-file,filename={_escaped(disk.file)},locking=on,{read_only}"
    yield "-blockdev"
    yield f"driver={disk.format},node-name={node},file={node}-file,{read_only}"
    yield "-device"
    yield f"virtio-blk-pci,id={node}-pci,drive={node},serial={_escaped(disk.name[:20])}"


def _escaped(text: str) -> str:
    """Write a value in QEMU's lists of options, in which a comma ends it."""
    return text.replace(",", ",,")
