"""Ports of loopback for daemons that are about to start.

A port that the kernel gives to whoever asks for any (`bind` to 0) is one that it gives to the next who connects to
somebody as well: between the choice and the daemon's own `bind` it is gone where much is going on.
"""

import contextlib
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_FIRST: Final = 10_000
_GIVEN_AWAY: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The first and the last port that are given to whoever connects (Linux, Documentation/networking/ip-sysctl.rst)."""
_FEWEST: Final = 1_000
_END: Final = 1 << 16


def free_ports(count: int) -> Sequence[int]:
    """Return ports of loopback on which nobody listens, and that are given to nobody who connects.

    They are drawn from the system's randomness, so that processes that begin alike do not draw the same.
    """
    drawn, among = random.SystemRandom(), not_given_away(_GIVEN_AWAY.read_text())
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = drawn.choice(among)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
        return found


def not_given_away(given_away: str) -> range:
    """Return the ports below those that are given away; where hardly any are left, all that nobody needs root for."""
    first = int(given_away.split(maxsplit=1)[0])
    below = range(_FIRST, first)
    return below if len(below) >= _FEWEST else range(_FIRST, _END)
