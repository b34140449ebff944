"""Where RAM of a size lies in the guest-physical map.

A PC of more than 2.75 GiB has its RAM split by the PCI hole: 2 GiB below, the rest from 4 GiB up (QEMU's q35).
"""

from dataclasses import dataclass
from typing import Final

from vmm.memory.quantities import GuestPhysicalAddress, RamOffset

_SPLIT_ABOVE: Final = 0xB000_0000
_BELOW_4G: Final = 0x8000_0000
_HIGH_BASE: Final = 0x1_0000_0000


@dataclass(frozen=True, slots=True)
class Section:
    """A contiguous piece of RAM in the guest-physical map."""

    base: GuestPhysicalAddress
    offset: RamOffset
    size: int


def sections(size: int) -> tuple[Section, ...]:
    """Return where RAM of a size lies."""
    if size <= _SPLIT_ABOVE:
        return (Section(GuestPhysicalAddress(0), RamOffset(0), size),)
    return (
        Section(GuestPhysicalAddress(0), RamOffset(0), _BELOW_4G),
        Section(GuestPhysicalAddress(_HIGH_BASE), RamOffset(_BELOW_4G), size - _BELOW_4G),
    )
