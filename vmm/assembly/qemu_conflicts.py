"""What cannot be in a specification of kind "qemu", each value being right by itself.

As vmm.assembly.specification_conflicts, but over the document as it was written: what a model is made of has no meaning
here, so it has no defaults either.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from vmm.assembly.quantity_text import format_size, parse_size

Conflict = tuple[str, str, str]
"""Key, problem, allowed values."""
Document = Mapping[str, object]

MODEL_TABLES: Final = ("viommu", "guest", "rules", "device")
_GRANULE: Final = 1 << 20
_MOST_RAM: Final = 16 << 40
_OURS: Final = {
    "S": "a machine runs when it is told to",
    "action": "what a guest does when it panics or switches itself off is set already: it stands still",
    "chroot": "it works in its machine's folder",
    "daemonize": "its process is watched",
    "gdb": "whoever sits at it can let a guest run that was given away",
    "h": "it would end at once",
    "help": "it would end at once",
    "incoming": "a destination waits by itself",
    "loadvm": "a machine starts from its disks, or from another host",
    "m": "memory.size says it",
    "machine": "qemu.machine says it",
    "M": "qemu.machine says it",
    "mem-path": "RAM is a memfd, so that it can be compared",
    "mem-prealloc": "a destination's RAM is touched beforehand by itself",
    "name": "name says it",
    "no-shutdown": "it is set already",
    "pidfile": "its process is watched",
    "preconfig": "a machine runs when it is told to",
    "qmp": "one client commands a machine",
    "qmp-pretty": "one client commands a machine",
    "readconfig": "what is in a file of options nobody checks",
    "runas": "a machine runs as its host's agents do",
    "run-with": "a machine runs as its host's agents do",
    "s": "whoever sits at it can let a guest run that was given away",
    "set": "it changes what was checked",
    "snapshot": "a destination could not have what was written",
    "uuid": "it is drawn when the machine is made",
    "version": "it would end at once",
}
"""QEMU's options that are not the user's, and why."""
_RESERVED: Final = "viaduct-"


def qemu_conflicts(document: Document) -> Iterator[Conflict]:
    """Yield every conflict of a document of this kind."""
    for key in MODEL_TABLES:
        if key in document:
            yield key, 'Says what a model is made of, and has no meaning with kind = "qemu"', "no such table"
    if document.get("qemu") is None:
        yield "qemu", 'Required with kind = "qemu"', "a table; an empty one starts QEMU without disks"
    yield from _memory(_table(document, "memory"))
    qemu = _table(document, "qemu")
    yield from _binary(qemu)
    yield from _machine(qemu)
    yield from _arguments(qemu)
    yield from _disks(qemu)


def _memory(memory: Document) -> Iterator[Conflict]:
    for key in ("backing", "path", "image"):
        if key in memory and (key, memory[key]) != ("backing", "memfd"):
            yield f"memory.{key}", 'Has no meaning with kind = "qemu"', "nothing: RAM is a memfd that QEMU makes"
    value = memory.get("size")
    try:
        size = parse_size(value) if isinstance(value, str) else value
    except ValueError:
        return
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return
    if not _GRANULE <= size <= _MOST_RAM:
        yield "memory.size", f"Out of range: {size} bytes", f"{format_size(_GRANULE)} to {format_size(_MOST_RAM)}"
    elif size % _GRANULE:
        yield "memory.size", f"Not a whole number of MiB: {size} bytes", "a multiple of 1MiB"


def _binary(qemu: Document) -> Iterator[Conflict]:
    binary = qemu.get("binary")
    if isinstance(binary, str) and "/" in binary and not binary.startswith("/"):
        yield "qemu.binary", f'"{binary}" is neither a name nor an absolute path', "qemu-system-x86_64, or /usr/bin/..."


def _machine(qemu: Document) -> Iterator[Conflict]:
    machine = qemu.get("machine")
    if isinstance(machine, str) and any(part.startswith("memory-backend=") for part in machine.split(",")):
        yield "qemu.machine", "memory-backend is set already: RAM is a memfd", "a machine type and other options"


def _arguments(qemu: Document) -> Iterator[Conflict]:
    arguments = qemu.get("arguments")
    if not isinstance(arguments, list | tuple):
        return
    for index, word in enumerate(arguments):
        if not isinstance(word, str):
            continue
        key, option = f"qemu.arguments[{index}]", word.removeprefix("-").removeprefix("-")
        if word.startswith("-") and option in _OURS:
            yield key, f"{word} is not for a specification: {_OURS[option]}", "any other option of QEMU"
        elif _RESERVED in word and f"id={_RESERVED}" in word:
            yield key, f'Names that begin with "{_RESERVED}" are taken', "another id"


def _disks(qemu: Document) -> Iterator[Conflict]:
    disks = qemu.get("disk")
    for field in ("name", "file"):
        first: dict[str, int] = {}
        for index, disk in enumerate(disks if isinstance(disks, list | tuple) else ()):
            value = disk.get(field) if isinstance(disk, dict) else None
            if isinstance(value, str) and first.setdefault(value, index) != index:
                place = f"qemu.disk[{first[value]}]"
                yield f"qemu.disk[{index}].{field}", f'"{value}" is taken by {place}', f"a {field} of its own"


def _table(document: Document, key: str) -> Document:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def conflicts_without_qemu(document: Document) -> Iterator[Conflict]:
    """Yield what a document of another kind must not say."""
    if document.get("qemu") is not None:
        yield "qemu", 'Has no meaning with kind = "model"', 'no such table, or kind = "qemu"'
