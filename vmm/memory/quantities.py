"""Quantities that must not be confused, as distinct types."""

from typing import Final, NewType

Iova = NewType("Iova", int)
"""An address as a device sees it."""
GuestPhysicalAddress = NewType("GuestPhysicalAddress", int)
"""An address as the guest's CPU sees it, after its own page tables."""
RamOffset = NewType("RamOffset", int)
"""A byte's place in the RAM block, which has no holes."""
PageIndex = NewType("PageIndex", int)
"""A page's place in the RAM block."""

PAGE_SIZE: Final = 4096
PAGE_SHIFT: Final = 12
