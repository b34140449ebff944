"""The path that everybody's bytes take: loopback, or two hosts in network namespaces on a shaped link.

::

    worker's namespace:  br0 10.7.0.1 (whoever drives)
                          |            |
    cables              host-a       host-b      eth0 of each: tbf, so that either direction is shaped

All of it lives in namespaces of the worker's own (unshare), also the processes: when the worker ends, however it ends,
the kernel takes the rest down.
"""

import os
import subprocess
from collections.abc import Callable
from typing import Final, Literal

from tests.faults.network import Loopback, Namespaces, Network

LinkName = Literal["loopback", "1 Gbit/s", "300 Mbit/s"]

HOSTS: Final = ("host-a", "host-b")
RATES: Final = {"1 Gbit/s": "1gbit", "300 Mbit/s": "300mbit"}
"""As tc writes them."""
_BURST: Final = "256kb"
_LATENCY: Final = "50ms"
_SECONDS: Final = 20.0


def make_link(name: LinkName) -> Network:
    """Return the path between both hosts, up and shaped.

    Raises:
        RuntimeError: This machine cannot shape it; nothing of it is left.
    """
    if name == "loopback":
        # A namespace of the worker's own begins with its loopback down; elsewhere it is up, and this may be refused.
        _run("ip", "link", "set", "lo", "up")
        return Loopback()
    network = Namespaces(HOSTS)
    try:
        shape(network.inside, RATES[name])
    except BaseException:
        network.close()
        raise
    return network


def shape(inside: Callable[[str], list[str]], rate: str) -> None:
    """Have each host send at most so much (tc-tbf(8)); may be called again with another rate.

    Raises:
        RuntimeError: The kernel refuses.
    """
    for host in HOSTS:
        words = ("qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", _BURST, "latency", _LATENCY)
        refused = _run(*inside(host), "tc", *words)
        if refused:
            raise RuntimeError(f"The link of {host} cannot be shaped: {refused}")


def _run(*command: str) -> str:
    """Run a command of iproute2; return what it says when it fails, and nothing when it does not."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_SECONDS, env=environment)
    return done.stderr.strip() or f"exit {done.returncode}" if done.returncode else ""
