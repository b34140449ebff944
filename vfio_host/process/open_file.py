"""What a descriptor stands for: an open file that answers calls. No sockets here; the loop gives it a descriptor."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface.calls import Answer, AnyCall, Failed
from vfio_host.memory_file import MemoryFile, MemoryFiles


class Received:
    """What came with a batch: its descriptors, which stay the loop's (a call that keeps one duplicates it).

    `caller` is the process that sent it, as the kernel tells: what a call does to its memory it does to that one's.
    `room` is how many bytes the answer of the next call may take; None where answers are not sent as messages. A call
    whose answer is large refuses with ENOMEM before it does anything that cannot be done again.
    """

    def __init__(self, descriptors: Sequence[int], room: int | None = None, caller: int = 0) -> None:
        self.room = room
        self.caller: Final = caller
        self._descriptors: Final = tuple(descriptors)
        self._files: Final[dict[int, MemoryFile]] = {}
        self._next = 0

    def at(self, index: int) -> int:
        """Return the descriptor that a call names. EBADF when there is none."""
        if not 0 <= index < len(self._descriptors):
            raise CallRefused(errno.EBADF, f"Batch brought no descriptor {index}")
        return self._descriptors[index]

    def memory(self, index: int, files: MemoryFiles) -> MemoryFile:
        """Return the memory that a descriptor stands for, which every mapping of a batch may name."""
        found = self._files.get(index)
        if found is None:
            found = self._files[index] = files.of(self.at(index))
        return found

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


def carried_out(file: OpenFile, call: AnyCall, received: Received) -> "Answer | Opening":
    """Do one call; its errno is an answer too."""
    try:
        return file.call(call, received)
    except CallRefused as refusal:
        return Failed(refusal.errno)
    except OSError as error:  # this process's own limits: descriptors, above all
        return Failed(error.errno or errno.EIO)
    except MemoryError:
        return Failed(errno.ENOMEM)


def no_such_call(file: OpenFile, call: AnyCall) -> CallRefused:
    """Return the refusal of a call that a kind of file does not know."""
    return CallRefused(errno.ENOTTY, f"{type(file).__name__} knows no {type(call).__name__}")
