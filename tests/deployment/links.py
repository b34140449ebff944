"""The links of the deployed site's containers: their names, what they carried, and how much they may."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack

from tests.deployment.deployment import MIGRATION, Deployment


def link(site: Deployment, host: str, network: str) -> str:
    """Return the name of a host's link into a network."""
    lines = site.in_network_of(host, "ip", "-oneline", "-4", "address").splitlines()
    (found,) = [line.split()[1] for line in lines if f" {network}." in line]
    return found


def counted(site: Deployment, host: str, network: str, way: str) -> int:
    """Return how many bytes a host has received (`rx`) from a network, or sent (`tx`) into it."""
    path = f"/sys/class/net/{link(site, host, network)}/statistics/{way}_bytes"
    return int(site.in_network_of(host, "cat", path))


@contextlib.contextmanager
def shaped(site: Deployment, rate: str, *hosts: str) -> Iterator[None]:
    """Have hosts send at most so much into the migration network, as tc-tbf(8) writes it, in the context."""
    shape = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
    with ExitStack() as stack:
        for host in hosts:
            qdisc = ("dev", link(site, host, MIGRATION), "root")
            site.in_network_of(host, "tc", "qdisc", "add", *qdisc, *shape)
            stack.callback(site.in_network_of, host, "tc", "qdisc", "delete", *qdisc)
        yield
