"""What the hypervisor asked for a range of addresses, and how it says that it failed: as QEMU does."""

import errno
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One request. `ends_stream` says whether its failure ends a migration."""

    function: str
    iova: int
    size: int
    ends_stream: bool

    def failed(self, number: int) -> str:
        """Return the text for an errno."""
        return f"{self.function}(0x{self.iova:x}, 0x{self.size:x}) = -{number} ({os.strerror(number)})"

    def too_large(self, reason: str) -> str:
        """Return the text for a bitmap over the limit."""
        return f"{self.failed(errno.E2BIG)}: {reason}"
