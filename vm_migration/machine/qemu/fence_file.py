"""What the shim must not forget while its QEMU lives: the fence, and how often the guest has stopped.

QEMU has neither. The file lies beside the machine's sockets and is durable before a `cont`, and before an answer that
depends on it: a shim that dies and comes back runs nothing that was released.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from vmm.process.fence import Fence

FENCE_FILE: Final = "fence.json"
_NEVER: Final = -1


class Kept(msgspec.Struct, frozen=True):
    """The file's contents."""

    epoch: int = 0
    controller: int = 0
    released: int = -1
    pause: int = 0
    incoming: bool = False
    granted: int = 0
    """The highest epoch at which it was told to run; below every epoch of a machine that waits to be told."""
    strayed: int = 0
    """How often its guest ran although it was given away, or not told to, since it was an ordinary machine."""

    @classmethod
    def waiting(cls) -> "Kept":
        """Return what is kept of a machine that waits for a stream: it was never told to run."""
        return cls(incoming=True, granted=_NEVER)

    @property
    def fence(self) -> Fence:
        """The fence in it."""
        return Fence(self.epoch, self.controller, self.released)


class FenceFile:
    """Written as a whole, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / FENCE_FILE

    def read(self) -> Kept | None:
        """Return what was kept last; None where nothing ever was.

        Raises:
            ValueError: The file is damaged: nobody knows what was released.
            OSError: It cannot be read.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._path} is damaged: {error}") from error

    def write(self, kept: Kept) -> None:
        """Keep it; durable when this returns.

        Raises:
            OSError: It may not be.
        """
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
