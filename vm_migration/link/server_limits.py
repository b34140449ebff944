"""What a server takes on from all peers together, and from each one, so that none of them keeps the others out.

::

    connections   open at once, those that have not said who they are among them; more are closed as they come
    handshake     seconds in which a connection must be through TLS and have begun HTTP/2
    calls         of one identity at once, streams among them; more are refused with `too-many-calls`

Descriptors are what runs out first, and journals need some: connections never take more than half of them.
"""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from vm_migration.errors import Refused
from vm_migration.link.channel import SERVER_OPTIONS
from vm_migration.link.identity import Identity

_CALLS_OF_A_CONNECTION: Final = 256
"""HTTP/2 streams; a client that has as many waits with the next one."""
_UNBOUNDED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What is configured, or else usual; `handshake` in seconds."""

    connections: int = 1024
    handshake: float = 5.0
    calls: int = 256


USUAL: Final = ServerLimits()


def server_options(limits: ServerLimits, descriptors: int) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a process that may have so many file descriptors."""
    return (
        *SERVER_OPTIONS,
        ("grpc.max_allowed_incoming_connections", max(1, min(limits.connections, descriptors // 2))),
        ("grpc.server_handshake_timeout_ms", max(1, round(1000 * limits.handshake))),
        ("grpc.max_concurrent_streams", _CALLS_OF_A_CONNECTION),
    )


def own_descriptors() -> int:
    """Return how many file descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNBOUNDED if soft == resource.RLIM_INFINITY else soft


class OpenCalls:
    """The calls of each identity that have not ended; peers on plaintext are one."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._open: Final[Counter[Identity | None]] = Counter()

    @contextmanager
    def counted(self, peer: Identity | None) -> Iterator[None]:
        """Count a call while the context is entered.

        Raises:
            Refused: The peer has too many already; this one is not counted.
        """
        if self._open[peer] >= self._most:
            who = "Plaintext peers" if peer is None else peer.uri
            text = f"{who} has {self._most} calls open here already"
            raise Refused("too-many-calls", text, "Wait for some to end, or raise [limits] calls")
        self._open[peer] += 1
        try:
            yield
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]
