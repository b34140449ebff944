"""Eventfds that a client brought: what they are, and which of two descriptors are the same one."""

import contextlib
import errno
from pathlib import Path
from typing import Final

from vfio_host.errors import CallRefused

_ID: Final = "eventfd-id:"


def eventfd(descriptor: int) -> int:
    """Check that a descriptor is an eventfd: only of those is it known that signalling cannot block the loop.

    Raises:
        CallRefused: EINVAL for anything else.
    """
    name = ""
    with contextlib.suppress(OSError):
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if name != "anon_inode:[eventfd]":
        raise CallRefused(errno.EINVAL, f"Descriptor {name or descriptor} is not an eventfd")
    return descriptor


def eventfd_id(descriptor: int) -> int:
    """Return the kernel's number of an eventfd, the same through every descriptor of it (proc_pid_fdinfo(5)).

    Raises:
        CallRefused: EINVAL for what is no eventfd.
    """
    text = Path(f"/proc/self/fdinfo/{eventfd(descriptor)}").read_text()
    return next(int(line.removeprefix(_ID)) for line in text.splitlines() if line.startswith(_ID))
