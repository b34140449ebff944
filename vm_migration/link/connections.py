"""Which connections have shown who they are: gRPC tells when one comes and of each call, and nothing in between."""

from typing import Final

KEPT: Final = 4096


class CallingConnections:
    """The addresses from which calls came; of more than `KEPT`, those that called longest ago are forgotten."""

    def __init__(self) -> None:
        self._seen: Final[dict[str, None]] = {}

    def is_first(self, address: str) -> bool:
        """Return whether a call is the first one of its connection."""
        known = address in self._seen
        if known:
            del self._seen[address]
        self._seen[address] = None
        if len(self._seen) > KEPT:
            del self._seen[next(iter(self._seen))]
        return not known
