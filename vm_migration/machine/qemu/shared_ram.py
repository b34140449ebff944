"""RAM of a QEMU process, through the process's own descriptor of it.

Only shared memory will do: a private mapping holds writes that its file never sees. Source: proc(5), and QEMU's
`memory-backend-memfd,share=on`, whose memfd carries the backend's type as its name.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LINK: Final = "/memfd:memory-backend-memfd (deleted)"


def open_ram(pid: int, size: int) -> int:
    """Open the memory that a QEMU has as its whole RAM; the caller owns the descriptor.

    Raises:
        LookupError: It has none such, or more than one; the message says what it would need.
    """
    shared = set(_shared_inodes(pid))
    found: list[int] = []
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            if _leads_to(path) != _LINK:
                continue
            seen = path.stat()
            if seen.st_size == size and seen.st_ino in shared:
                found.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        _close(found)
        raise LookupError(f"Descriptors of QEMU {pid} cannot be read: {error}") from error
    if len(found) != 1:
        _close(found)
        text = f"QEMU {pid} has no single memory-backend-memfd,share=on of {size} bytes: its RAM cannot be compared"
        raise LookupError(text)
    return found[0]


def _leads_to(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # closed since it was listed
        return ""


def _shared_inodes(pid: int) -> Iterator[int]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError as error:
        raise LookupError(f"Memory of QEMU {pid} cannot be looked at: {error}") from error
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == _LINK and fields[1].endswith("s"):
            yield int(fields[4])


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
