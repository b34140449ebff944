"""The archive that a Linux kernel unpacks as its first file system: "newc" cpio, as initramfs documentation has it.

Source: Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_END: Final = "TRAILER!!!"
_CONSOLE: Final = (5, 1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or device of the archive."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def initramfs(program: bytes, modules: tuple[bytes, ...] = ()) -> bytes:
    """Return an archive in which a program is all there is to run; its output goes to the kernel's console.

    It finds the kernel's modules that it loads as m0, m1 and so on.
    """
    return archive(
        (
            Entry("dev", stat.S_IFDIR | 0o755),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=_CONSOLE),
            Entry("sys", stat.S_IFDIR | 0o755),
            Entry("init", stat.S_IFREG | 0o755, program),
            *(Entry(f"m{number}", stat.S_IFREG | 0o644, module) for number, module in enumerate(modules)),
        )
    )


def archive(entries: tuple[Entry, ...]) -> bytes:
    """Return entries as one archive, in their order: a folder comes before what lies in it."""
    return b"".join(part for number, entry in enumerate((*entries, Entry(_END, 0))) for part in _parts(number, entry))


def _parts(number: int, entry: Entry) -> Iterator[bytes]:
    name = entry.path.encode() + b"\0"
    major, minor = entry.device
    fields = (number + 1, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    yield head + bytes(-len(head) % 4)
    yield entry.data + bytes(-len(entry.data) % 4)
