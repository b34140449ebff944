"""Which ranges of addresses a device is asked to log (semantics 2.6).

Low RAM, high RAM and the high PCI hole are ranges of their own, so that a device need not log the gaps between them,
which are wider than what many can.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_LAST_OF_32_BITS: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an address space; `device_memory` is that of another passed-through device."""

    iova: int
    size: int
    device_memory: bool = False

    @property
    def last(self) -> int:
        """The last address."""
        return self.iova + self.size - 1


@dataclass(slots=True)
class _Bucket:
    low: int
    high: int = field(default=0)

    def extend(self, span: Span) -> None:
        self.low, self.high = min(self.low, span.iova), max(self.high, span.last)


def logging_ranges(spans: Iterable[Span]) -> tuple[tuple[int, int], ...]:
    """Return at most three ranges (iova, length) that cover the spans; none when there is nothing."""
    low = _Bucket(_LAST_OF_32_BITS)
    high, device_memory = _Bucket((1 << 64) - 1), _Bucket((1 << 64) - 1)
    for span in spans:
        if span.device_memory and span.iova >= _LAST_OF_32_BITS:
            device_memory.extend(span)
        else:
            (low if span.last <= _LAST_OF_32_BITS else high).extend(span)
    return tuple(
        (bucket.low, bucket.high - bucket.low + 1) for bucket in (low, high, device_memory) if bucket.high != 0
    )
