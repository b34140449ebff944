"""What a descriptor stands for: an open file that answers calls. No sockets here; the loop gives it a descriptor."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface.calls import Answer, AnyCall


class Received:
    """The descriptors that came with a batch; they stay the loop's, and a call that keeps one duplicates it."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors: Final = tuple(descriptors)
        self._next = 0

    def at(self, index: int) -> int:
        """Return the descriptor that a call names. EBADF when there is none."""
        if not 0 <= index < len(self._descriptors):
            raise CallRefused(errno.EBADF, f"Batch brought no descriptor {index}")
        return self._descriptors[index]

    def following(self) -> int:
        """Return the next descriptor that no call has taken in this way. EBADF when there is none."""
        self._next += 1
        return self.at(self._next - 1)


class OpenFile(ABC):
    """One open object of the host."""

    @abstractmethod
    def call(self, call: AnyCall, received: Received) -> "Answer | Opening":
        """Carry a call out. CallRefused carries its errno; ENOTTY for a call that is for another kind of file."""

    @abstractmethod
    def release(self) -> None:
        """Let go: the last copy of the descriptor is closed."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A call's answer that is a new open file."""

    id: int
    file: OpenFile


def no_such_call(file: OpenFile, call: AnyCall) -> CallRefused:
    """Return the refusal of a call that a kind of file does not know."""
    return CallRefused(errno.ENOTTY, f"{type(file).__name__} knows no {type(call).__name__}")
