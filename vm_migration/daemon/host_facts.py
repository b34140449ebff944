"""What every daemon of this version says of itself."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("viaduct")
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
)
"""Offered by the destination, chosen by the source."""


def speaks(other: str) -> bool:
    """Tell whether the wire of another version is ours: this minor version and the one before."""
    try:
        major, minor = (int(part) for part in other.split(".")[:2])
        own_major, own_minor = (int(part) for part in VERSION.split(".")[:2])
    except ValueError:
        return False
    return major == own_major and minor in (own_minor, own_minor - 1, own_minor + 1)
