"""At what rate pages come across: what the wire carries, and what a codec makes of them on the way; pure.

::

    none       wire
    a codec    the lower of its own speed and wire / ratio
    auto       the highest of those, where a codec promises enough   (vm_migration.transfer.compression)

What is compressed fills the wire with more pages, until the codec is what is waited for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vm_migration.transfer.frames import Codec
from vm_migration.transfer.ranges import Range

GAIN: Final = 0.95
"""The share of the time without a codec that it must not exceed to be taken."""
_SPEED: Final = (0.5, 2.0)
"""How much slower a codec may be where processors are short, and faster where two frames are with it at a time."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What a codec makes of a machine's pages."""

    codec: Codec
    ratio: Range
    """Bytes on the wire for each byte of pages; over nothing, and 1 at most."""
    bytes_per_s: float
    """Pages that one call takes in."""


def page_rate(
    wire_bytes_per_s: Range, packings: Sequence[Packing], compression: str, *, came: Range | None = None
) -> Range:
    """Return the bytes of pages that come across in a second.

    Args:
        wire_bytes_per_s: What the wire carries, or may.
        packings: What each codec makes of these pages.
        compression: The policy: auto, none, lz4 or zstd.
        came: What came across of late where codecs made pages fewer, which is likely to be the most that will: a codec
            that is tried alone has a processor to itself, and in an attempt both ends and the guest share them.
    """
    each = {packing.codec.name.lower(): _packed(wire_bytes_per_s, packing, came) for packing in packings}
    if compression != "auto":
        return each.get(compression, wire_bytes_per_s)
    best = max(each.values(), key=lambda rate: rate.likely, default=wire_bytes_per_s)
    return best if wire_bytes_per_s.likely <= GAIN * best.likely else wire_bytes_per_s


def _packed(wire: Range, packing: Packing, came: Range | None) -> Range:
    ratio, speed = packing.ratio, packing.bytes_per_s
    found = Range(
        min(speed * _SPEED[0], wire.low / ratio.high),
        min(speed, wire.likely / ratio.likely),
        min(speed * _SPEED[1], wire.high / ratio.low),
    )
    if came is None:
        return found
    return Range(min(found.low, came.low), min(found.likely, came.likely), found.high)
