"""What the hypervisor asked for a range of addresses, and how it says that it failed: as QEMU does."""

import errno
import os

import msgspec

from vmm.vfio.ram_pieces import Piece


class RangeRequest(msgspec.Struct, frozen=True, gc=False):
    """One request. `ends_stream` says whether its failure ends a migration, `backing` what RAM the range stands for.

    A struct that the collector need not look at: thousands wait at once for their answers.
    """

    function: str
    iova: int
    size: int
    ends_stream: bool
    backing: tuple[Piece, ...] = ()

    def failed(self, number: int) -> str:
        """Return the text for an errno."""
        return f"{self.function}(0x{self.iova:x}, 0x{self.size:x}) = -{number} ({os.strerror(number)})"

    def too_large(self, reason: str) -> str:
        """Return the text for a bitmap over the limit."""
        return f"{self.failed(errno.E2BIG)}: {reason}"
