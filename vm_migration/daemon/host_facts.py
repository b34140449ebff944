"""What every daemon of this version says of itself."""

from functools import lru_cache
from importlib.metadata import version
from typing import Final

VERSION: Final = version("viaduct")
MACHINE_STREAM: Final = "machine-stream"
DIRECT_MACHINE_STREAM: Final = "machine-stream-direct"
FEATURES: Final = (
    "frames-1",
    "digests-xxh3-64",
    "verify-witness",
    "device-records",
    "progress-acks",
    "cut-rounds",
    "frames-compressed",
    "frames-delta",
    "frames-digest-summed",
    "direct",
    "sealed",
    MACHINE_STREAM,
    DIRECT_MACHINE_STREAM,
)
"""Offered by the destination, chosen by the source."""
TRANSPORT_NOT_OFFERED: Final = "transport-not-offered"
"""What is said where streams cannot travel to a host, or from it, in the way that was asked for."""


def speaks(other: str) -> bool:
    """Tell whether the wire of another version is ours."""
    return speak_alike(VERSION, other)


@lru_cache(maxsize=256)
def speak_alike(one: str, other: str) -> bool:
    """Tell whether two versions have a wire in common: a minor version and the one before."""
    try:
        major, minor = (int(part) for part in one.split(".")[:2])
        other_major, other_minor = (int(part) for part in other.split(".")[:2])
    except ValueError:
        return False
    return major == other_major and abs(minor - other_minor) <= 1
