"""The host kernel as the hypervisor reaches it: objects opened by path, calls on their descriptors.

`vmm.process.host_connection` is the real one, over sockets; the lab's is the same objects in one process.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vfio_host.interface.calls import Answer, AnyCall, Failed

A = TypeVar("A")


class HostCallFailed(Exception):
    """A call answered with an errno; `text` says what that means where the call alone does not."""

    def __init__(self, call: AnyCall, number: int, text: str | None = None) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{type(call).__name__} failed with -{name} ({os.strerror(number)})" if text is None else text)
        self.call = call
        self.errno = number


def unless_failed(call: AnyCall, answer: A) -> A:
    """Return what a call came to.

    Raises:
        HostCallFailed: It is an errno.
    """
    if isinstance(answer, Failed):
        raise HostCallFailed(call, answer.errno)
    return answer


class HostGone(Exception):
    """The host process does not answer any more; its devices are stopped with it."""


class Descriptor(Protocol):
    """An open object of the host; closing the last copy releases it."""

    def batch(self, calls: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        """Make calls in order; one answer each, errnos included.

        Raises:
            HostGone: Which of the calls happened is unknown.
        """

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        """Make one call.

        Raises:
            HostCallFailed: It answered with an errno.
            HostGone: Whether it happened is unknown.
        """

    def open(self, call: AnyCall) -> "OpenObject | None":
        """Make one call that answers with a new descriptor, or with none."""

    def close(self) -> None:
        """Close this copy."""


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object's id among the host's objects, and its descriptor."""

    id: int
    descriptor: Descriptor


class HostPort(Protocol):
    """The connection on which objects are opened."""

    def open(self, path: str) -> OpenObject:
        """Open a path, as on Linux.

        Raises:
            HostCallFailed: ENOENT for what this host does not have.
        """

    def register_memory(self, address: int, length: int, descriptor: int) -> None:
        """Tell what lies at a user address."""

    def report_writes(self) -> bytes | None:
        """Return the kernel's witness of what the host process wrote to RAM, or None where it offers none."""
