"""The invalidation queue in guest RAM and its descriptors (semantics 4.11).

A descriptor with a reserved bit set, of an unknown type, or that cannot be read stops the queue at its head. So does
a tail beyond the queue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.registers import MAMV

_ONES: Final = (1 << 64) - 1


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


@dataclass(frozen=True, slots=True)
class InvalidateContexts:
    """Context cache: one device and those that its function mask names; all when `devices` is None."""

    devices: tuple[int, int] | None

    def matches(self, source: int) -> bool:
        """Whether a device of this source id is meant."""
        if self.devices is None:
            return True
        sid, masked = self.devices
        return source & ~masked == sid & ~masked


@dataclass(frozen=True, slots=True)
class InvalidateIotlb:
    """Translations: of one domain or all, of one PASID or all, within [first, last] or everywhere."""

    domain_id: int | None
    pasid: int | None
    pages: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class InvalidatePasids:
    """PASID cache: of one domain or all, of one PASID or all."""

    domain_id: int | None
    pasid: int | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Everything before is done: write a status word, raise the completion event, or both."""

    status: tuple[int, int] | None
    interrupt: bool


@dataclass(frozen=True, slots=True)
class Nothing:
    """A valid descriptor for a cache that this model does not have: device TLBs, interrupt entries."""


Command = InvalidateContexts | InvalidateIotlb | InvalidatePasids | Wait | Nothing
Words = tuple[int, int, int, int]

_RESERVED: Final[dict[DescriptorType, Words]] = {
    DescriptorType.CONTEXT_CACHE: (0xFFFC_0000_0000_F1C0, _ONES, _ONES, _ONES),
    DescriptorType.IOTLB: (0xFFFF_FFFF_0000_F100, 0xF80, _ONES, _ONES),
    DescriptorType.DEVICE_TLB: (0xFFFF_0000_FFE0_F1F0, 0xFFE, _ONES, _ONES),
    DescriptorType.INTERRUPT_ENTRY: (0xFFFF_0000_07FF_F1E0, _ONES, _ONES, _ONES),
    DescriptorType.WAIT: (0xFFFF_F180, 0x3, _ONES, _ONES),
    DescriptorType.PASID_IOTLB: (0xFFF0_0000_0000_F1C0, 0xF80, _ONES, _ONES),
    DescriptorType.PASID_CACHE: (0xFFF0_0000_0000_F1C0, _ONES, _ONES, _ONES),
    DescriptorType.PASID_DEVICE_TLB: (0xFFF0_0000_0000_F000, 0x7FE, _ONES, _ONES),
}
_ONLY_256_BIT: Final = frozenset({DescriptorType.PASID_IOTLB, DescriptorType.PASID_DEVICE_TLB})


def decode(words: Words, *, wide: bool, scalable: bool) -> tuple[DescriptorType, Command | None]:
    """Return a descriptor's type and meaning; None for an invalid one."""
    try:
        kind = DescriptorType(words[0] >> 5 & 0x70 | words[0] & 0xF)
    except ValueError:
        return DescriptorType.NONE, None
    reserved = _RESERVED.get(kind)
    if reserved is None or any(word & mask for word, mask in zip(words, reserved, strict=True)):
        return kind, None
    if (kind in _ONLY_256_BIT and not wide) or (kind is DescriptorType.PASID_CACHE and not scalable):
        return kind, None
    return kind, _meaning(kind, words[0], words[1])


def _meaning(kind: DescriptorType, low: int, high: int) -> Command | None:
    match kind:
        case DescriptorType.CONTEXT_CACHE:
            return _contexts(low)
        case DescriptorType.IOTLB:
            return _iotlb(low, high)
        case DescriptorType.WAIT:
            return _wait(low, high)
        case DescriptorType.PASID_IOTLB:
            return _pasid_iotlb(low, high)
        case DescriptorType.PASID_CACHE:
            return _pasids(low)
        case _:
            return Nothing()


def _contexts(low: int) -> Command | None:
    match low >> 4 & 3:
        case 1 | 2:  # domain-selective is served as global
            return InvalidateContexts(None)
        case 3:
            return InvalidateContexts((low >> 32 & 0xFFFF, (0, 4, 6, 7)[low >> 48 & 3]))
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
            return InvalidateIotlb(domain_id, None, _page_range(high))
        case _:
            return None


def _pasid_iotlb(low: int, high: int) -> Command | None:
    domain_id, pasid = low >> 16 & 0xFFFF, low >> 32 & 0xFFFFF
    match low >> 4 & 3:
        case 2:
            return InvalidateIotlb(domain_id, pasid, None)
        case 3 if high & 0x3F <= MAMV:
            return InvalidateIotlb(domain_id, pasid, _page_range(high))
        case _:
            return None


def _pasids(low: int) -> Command | None:
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


def _page_range(high: int) -> tuple[int, int]:
    size = 4096 << (high & 0x3F)
    first = high & ~0xFFF & ~(size - 1)
    return first, first + size - 1


class InvalidationQueue:
    """The unit's side of the queue: base, size, head and tail in descriptors."""

    def __init__(self, memory: GuestMemory, *, scalable: bool) -> None:
        self.base = 0
        self.size = 0
        self.head = 0
        self.tail = 0
        self.wide = False
        self.enabled = False
        self.last_type = DescriptorType.NONE
        self._memory: Final = memory
        self._scalable: Final = scalable

    def start(self, address: int, *, size_order: int, wide: bool) -> None:
        """Begin at an address with 2^(order + 8) descriptors of 16 bytes, or half as many of 32."""
        self.base, self.wide = address, wide
        self.size = 1 << size_order + 8 - wide
        self.head = 0
        self.enabled, self.last_type = True, DescriptorType.NONE

    def stop(self) -> bool:
        """End, if the queue is empty and its last descriptor was a wait; return whether it ended."""
        if not self.enabled or self.head != self.tail or self.last_type is not DescriptorType.WAIT:
            return False
        self.head, self.enabled = 0, False
        return True

    @property
    def head_register(self) -> int:
        """The head as IQH shows it."""
        return self.head << (5 if self.wide else 4)

    def process(self, execute: Callable[[Command], bool]) -> bool:
        """Execute descriptors from the head to the tail; False when one is in error, with the head on it."""
        if self.tail >= self.size:
            return False
        while self.head != self.tail:
            words = self._fetch()
            if words is None:
                self.last_type = DescriptorType.NONE
                return False
            self.last_type, command = decode(words, wide=self.wide, scalable=self._scalable)
            if command is None or not execute(command):
                return False
            self.head = (self.head + 1) % self.size
        return True

    def _fetch(self) -> Words | None:
        try:
            if self.wide:
                first, second, third, fourth = self._memory.words(self.base + self.head * 32, 4).tolist()
                return first, second, third, fourth
            first, second = self._memory.words(self.base + self.head * 16, 2).tolist()
        except AccessFault:
            return None
        return first, second, 0, 0
