"""Descriptors of the invalidation queue: their types, their reserved bits, and what they mean (semantics 4.11).

The masks are those of VT-d 6.5.2 as QEMU checks them. A descriptor with a reserved bit set, of an unknown type, or
with a granularity or an address mask that there is not, means nothing: the queue stops at it.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from vmm.viommu.commands import (
    Command,
    InvalidateContexts,
    InvalidateIotlb,
    InvalidatePasids,
    Nothing,
    Wait,
    masked_devices,
    page_range,
)
from vmm.viommu.registers import MAMV

_ONES: Final = (1 << 64) - 1

Words = tuple[int, int, int, int]


class DescriptorType(IntEnum):
    """Bits 11:9 and 3:0 of a descriptor."""

    NONE = 0
    CONTEXT_CACHE = 1
    IOTLB = 2
    DEVICE_TLB = 3
    INTERRUPT_ENTRY = 4
    WAIT = 5
    PASID_IOTLB = 6
    PASID_CACHE = 7
    PASID_DEVICE_TLB = 8
    PAGE_GROUP_RESPONSE = 9


_RESERVED: Final[dict[DescriptorType, Words]] = {
    DescriptorType.CONTEXT_CACHE: (0xFFFC_0000_0000_F1C0, _ONES, _ONES, _ONES),
    DescriptorType.IOTLB: (0xFFFF_FFFF_0000_F100, 0xF80, _ONES, _ONES),
    DescriptorType.DEVICE_TLB: (0xFFFF_0000_FFE0_F1F0, 0xFFE, _ONES, _ONES),
    DescriptorType.INTERRUPT_ENTRY: (0xFFFF_0000_07FF_F1E0, _ONES, _ONES, _ONES),
    DescriptorType.WAIT: (0xFFFF_F180, 0x3, _ONES, _ONES),
    DescriptorType.PASID_IOTLB: (0xFFF0_0000_0000_F1C0, 0xF80, _ONES, _ONES),
    DescriptorType.PASID_CACHE: (0xFFF0_0000_0000_F1C0, _ONES, _ONES, _ONES),
    DescriptorType.PASID_DEVICE_TLB: (0xFFF0_0000_0000_F000, 0x7FE, _ONES, _ONES),
    # The upper half carries what the device gave with its request.
    DescriptorType.PAGE_GROUP_RESPONSE: (0xFFF0_0000_0000_01E0, 0xFFFF_FFFF_FFFF_F003, 0, 0),
}
_ONLY_256_BIT: Final = frozenset(
    {DescriptorType.PASID_IOTLB, DescriptorType.PASID_CACHE, DescriptorType.PASID_DEVICE_TLB}
)


def decode(words: Words, *, wide: bool) -> tuple[DescriptorType, Command | None]:
    """Return a descriptor's type and meaning; None for an invalid one. `wide` is the queue's descriptor width."""
    try:
        kind = DescriptorType(words[0] >> 5 & 0x70 | words[0] & 0xF)
    except ValueError:
        return DescriptorType.NONE, None
    reserved = _RESERVED.get(kind)
    if reserved is None or any(word & mask for word, mask in zip(words, reserved, strict=True)):
        return kind, None
    if kind in _ONLY_256_BIT and not wide:
        return kind, None
    return kind, _MEANINGS[kind](words[0], words[1])


def _contexts(low: int, _high: int) -> Command | None:
    match low >> 4 & 3:
        case 1 | 2:  # domain-selective is served as global
            return InvalidateContexts(None)
        case 3:
            return masked_devices(low >> 32 & 0xFFFF, low >> 48 & 3)
        case _:
            return None


def _iotlb(low: int, high: int) -> Command | None:
    domain_id = low >> 16 & 0xFFFF
    match low >> 4 & 3:
        case 1:
            return InvalidateIotlb(None, None, None)
        case 2:
            return InvalidateIotlb(domain_id, None, None)
        case 3 if high & 0x3F <= MAMV:
            return InvalidateIotlb(domain_id, None, page_range(high))
        case _:
            return None


def _pasid_iotlb(low: int, high: int) -> Command | None:
    domain_id, pasid = low >> 16 & 0xFFFF, low >> 32 & 0xFFFFF
    match low >> 4 & 3:
        case 2:
            return InvalidateIotlb(domain_id, pasid, None)
        case 3 if high & 0x3F <= MAMV:
            return InvalidateIotlb(domain_id, pasid, page_range(high))
        case _:
            return None


def _pasids(low: int, _high: int) -> Command | None:
    domain_id = low >> 16 & 0xFFFF
    match low >> 4 & 3:
        case 0:
            return InvalidatePasids(domain_id, None)
        case 1:
            return InvalidatePasids(domain_id, low >> 32 & 0xFFFFF)
        case 3:
            return InvalidatePasids(None, None)
        case _:
            return None


def _wait(low: int, high: int) -> Command | None:
    if not low >> 4 & 7:
        return None
    status = (high, low >> 32) if low >> 5 & 1 else None
    return Wait(status, bool(low >> 4 & 1))


def _page_group_response(low: int, _high: int) -> Command | None:
    # QEMU knows no response without a PASID.
    return Nothing() if low >> 4 & 1 else None


def _no_cache(_low: int, _high: int) -> Command:
    return Nothing()


_MEANINGS: Final[dict[DescriptorType, Callable[[int, int], Command | None]]] = {
    DescriptorType.CONTEXT_CACHE: _contexts,
    DescriptorType.IOTLB: _iotlb,
    DescriptorType.DEVICE_TLB: _no_cache,
    DescriptorType.INTERRUPT_ENTRY: _no_cache,
    DescriptorType.WAIT: _wait,
    DescriptorType.PASID_IOTLB: _pasid_iotlb,
    DescriptorType.PASID_CACHE: _pasids,
    DescriptorType.PASID_DEVICE_TLB: _no_cache,
    DescriptorType.PAGE_GROUP_RESPONSE: _page_group_response,
}
