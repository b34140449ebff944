"""What a server takes on from all peers together, and from each one.

::

    connections        open at once, those that have not said who they are among them; more are closed as they come
    handshake          seconds in which a connection must be through TLS and have begun HTTP/2
    idle               seconds after which one on which no call is open is closed
    calls              of one identity at once, streams among them
    calls_per_second   of one identity

Descriptors are what runs out first, and journals need some: connections never take more than half of them.
vm_migration.link.turnstile keeps what is of one identity. Connections are not told apart: who opens them faster than
they are closed keeps others out, and that is the packet filter's to hold down (docs/security.md, Limits).
"""

import resource
from dataclasses import dataclass
from typing import Final

from vm_migration.link.channel import SERVER_OPTIONS

_CALLS_OF_A_CONNECTION: Final = 256
"""HTTP/2 streams; a client that has as many waits with the next one."""
_UNBOUNDED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What is configured, or else usual; `handshake` and `idle`, which nobody configures, in seconds."""

    connections: int = 1024
    handshake: float = 5.0
    calls: int = 256
    calls_per_second: int = 50
    idle: float = 300.0


USUAL: Final = ServerLimits()


def server_options(limits: ServerLimits, descriptors: int) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a process that may have so many file descriptors."""
    return (
        *SERVER_OPTIONS,
        ("grpc.max_allowed_incoming_connections", max(1, min(limits.connections, descriptors // 2))),
        ("grpc.server_handshake_timeout_ms", max(1, round(1000 * limits.handshake))),
        ("grpc.max_connection_idle_ms", max(1, round(1000 * limits.idle))),
        ("grpc.max_concurrent_streams", _CALLS_OF_A_CONNECTION),
    )


def make_room(descriptors: int) -> None:
    """Let this process have so many file descriptors, as far as its hard limit goes: most shells give it 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def own_descriptors() -> int:
    """Return how many file descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNBOUNDED if soft == resource.RLIM_INFINITY else soft
