"""Which bits of a second-stage entry mean what (semantics 4.6)."""

from dataclasses import dataclass
from typing import Final

INTERRUPT_FIRST: Final = 0xFEE0_0000
INTERRUPT_LAST: Final = 0xFEEF_FFFF

_ONES: Final = (1 << 64) - 1
_IGNORED: Final = 0xBFF0_0000_0000_0000
"""Bits 63 and 61:52. Bit 62, once TM, is reserved (VT-d 3.2 and later), but with a device TLB and `stale_tm`."""
_TRANSIENT: Final = 1 << 62
LARGE: Final = 1 << 7
_SNOOP: Final = 1 << 11


def shift_of(level: int) -> int:
    """Return how many address bits lie below an entry of a level."""
    return 12 + 9 * (level - 1)


@dataclass(frozen=True, slots=True)
class EntryRules:
    """Which bits of an entry are its address, and which must be 0: by level, for tables or 4 KiB leaves and large."""

    address: int
    small: tuple[int, ...]
    large: tuple[int, ...]

    @classmethod
    def of_unit(cls, aw_bits: int, *, snoop: bool, transient: bool = False) -> "EntryRules":
        """Return the rules of a unit: whether leaves may have SNP, and the old TM."""
        beyond = _ONES & ~((1 << aw_bits) - 1) & ~_IGNORED
        leaf = beyond & ~(_TRANSIENT if transient else 0) | (0 if snoop else _SNOOP)
        table = beyond | _SNOOP
        return cls(
            (1 << aw_bits) - 1 & ~0xFFF,
            (0, leaf, table, table, table | LARGE),
            (0, leaf, leaf | 0x1FF000, leaf | 0x3FFFF000, table | LARGE),
        )

    def reserved(self, entry: int, level: int) -> int:
        """Return the bits that must be 0 in this entry."""
        return self.large[level] if entry & LARGE else self.small[level]
